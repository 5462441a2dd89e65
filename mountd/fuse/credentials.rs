//! Supplementary groups and CAP_FSETID of a calling process: the FUSE request does not carry them.

use crate::fs::Caller;

/// Number of the capability that lets a process keep suid and sgid bits (capabilities(7)).
const CAP_FSETID: u32 = 4;

/// `caller` with what `/proc/<pid>/status` says; without an entry (another pid namespace) nothing is assumed.
pub(super) fn of_process(pid: u32, caller: Caller) -> Caller {
    match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => parse(&status, caller),
        Err(_gone) => caller,
    }
}

fn parse(status: &str, mut caller: Caller) -> Caller {
    for line in status.lines() {
        if let Some(groups) = line.strip_prefix("Groups:") {
            caller.groups =
                groups.split_whitespace().filter_map(|group| group.parse().ok()).collect();
        } else if let Some(capabilities) = line.strip_prefix("CapEff:") {
            let mask = u64::from_str_radix(capabilities.trim(), 16).unwrap_or(0);
            caller.cap_fsetid = mask & (1 << CAP_FSETID) != 0;
        }
    }
    caller
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::fs::Caller;

    #[test]
    fn groups_and_capability_are_found() {
        let status = "Name:\tx\nGroups:\t4 27 1000 \nCapEff:\t0000000000000010\n";
        let caller = parse(status, Caller { uid: 7, ..Caller::default() });
        assert_eq!(caller.groups, [4, 27, 1000]);
        assert!(caller.cap_fsetid && caller.uid == 7);
        assert!(!parse("CapEff:\t000000000000000f\n", Caller::default()).cap_fsetid);
        assert_eq!(parse("nonsense", Caller::default()), Caller::default());
    }
}
