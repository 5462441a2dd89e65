//! `ironfs-shardd`: serves the disks of a storage machine.

fn main() -> std::process::ExitCode {
    ironfs::cli::shardd_main()
}
