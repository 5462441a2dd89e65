//! `ironfs-mountd`: serves one mount in the foreground.

fn main() -> std::process::ExitCode {
    ironfs::cli::mountd_main()
}
