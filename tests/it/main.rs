//! The one integration binary: harnesses that drive production code through its seams.
#![expect(
    unreachable_pub,
    reason = "the simulated disk is a module of the library's own tests too"
)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests may panic, and say how much they did"
)]
#![expect(clippy::disallowed_methods, reason = "real mounts run in real time, on real threads")]

mod away;
mod bus;
mod cli;
mod cluster;
mod compare;
mod corrupt;
mod crash;
mod device;
mod domains;
mod faulty;
mod fuzz;
mod gather;
mod heal;
mod kill;
mod loss;
mod medium;
mod mend;
mod metrics;
mod model;
#[cfg(feature = "shuttle")]
mod orders;
mod posix;
mod power;
mod real;
mod reference;
mod rig;
mod room;
mod sim;
mod takeover;
mod tidy;
mod up;
mod work;
