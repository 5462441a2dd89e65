//! The `ironfs` command; called as `mount.ironfs` it is the mount helper.

fn main() -> std::process::ExitCode {
    ironfs::cli::main()
}
