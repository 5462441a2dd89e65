use super::job;

#[test]
fn only_a_job_that_runs_has_a_rate() {
    let check = |name: &str, how, progress, expected: (&str, u64, Option<u64>)| {
        let job = job(name, how, progress, None);
        let found = (job.state.as_str(), job.bytes_per_second, job.eta_seconds);
        assert_eq!(found, expected, "{name}");
    };
    check("runs", (false, true), (5, 100, 10), ("running", 10, Some(11)));
    check("stands", (false, true), (5, 100, 0), ("running", 0, None));
    check("has just ended", (false, false), (105, 0, 10), ("idle", 0, None));
    check("is held", (true, true), (5, 100, 10), ("paused", 0, None));
    check("reads what came since", (false, true), (105, 0, 10), ("running", 10, None));
}
