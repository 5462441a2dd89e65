//! How a request is carried: polled once where it arrived, by a task if it has to wait, and timed to its answer.

use super::FuseFs;
use super::convert::errno;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Operation, Timer};
use fuser::Errno;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

impl FuseFs {
    /// A request has arrived.
    pub(super) fn arrived(&self, operation: Operation) -> Timer {
        self.metrics.of(operation).start()
    }

    /// Polls the request once here; if it has to wait, a task goes on with it.
    pub(super) fn serve<T: Send + 'static>(
        &self,
        timer: Timer,
        request: impl Future<Output = Result<T>> + Send + 'static,
        answer: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        let _context = self.runtime.enter();
        let answer = move |result: Result<T>| {
            answer(result.map_err(|error| answer_of(&error)));
            timer.stop();
        };
        let mut request: Pin<Box<dyn Future<Output = Result<T>> + Send>> = Box::pin(request);
        match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => answer(result),
            Poll::Pending => {
                self.tasks.spawn(async move { answer(request.await) });
            }
        }
    }
}

/// The errno of an error; one that is not a plain answer of the man page is logged here, where it is handled.
pub(super) fn answer_of(error: &Error) -> Errno {
    if !matches!(error.kind(), ErrorKind::Posix(_)) {
        tracing::warn!("a request failed: {error}");
    }
    errno(error.posix())
}
