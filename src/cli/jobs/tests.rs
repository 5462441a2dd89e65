use super::text;
use crate::volume::status::Job;

#[test]
fn only_what_moves_has_a_rate() {
    let job = |name: &str, state: &str, bytes_per_second, eta_seconds| Job {
        name: name.into(),
        state: state.into(),
        done_bytes: 1024,
        left_bytes: 0,
        bytes_per_second,
        eta_seconds,
        detail: None,
    };
    let jobs = [job("repair", "idle", 0, None), job("drain:3", "running", 2048, Some(5))];
    let expected = "\
JOB      STATE    DONE     LEFT  RATE       TO GO
repair   idle     1.0 KiB  0 B   -          -
drain:3  running  1.0 KiB  0 B   2.0 KiB/s  5 s
";
    assert_eq!(text(&jobs), expected);
}
