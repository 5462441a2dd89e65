//! What every daemon does first, for its whole process. Knows nothing of what it serves.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that a daemon may need: shards, log files, sockets.
const OPEN_FILES_MAX: u64 = 1_048_576;

/// Raises the limit of open files as far as it goes.
pub fn raise_open_files() {
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: Some(OPEN_FILES_MAX), maximum: Some(OPEN_FILES_MAX) };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        // Without privilege the hard limit stays; the soft one may rise up to it.
        let raised = Rlimit { current: now.maximum, maximum: now.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!("the limit of open files stays as it is: {error}");
        }
    }
}

/// A panic ends the process: recovery is what is tested, half-done state is not.
pub fn abort_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        std::process::abort();
    }));
}
