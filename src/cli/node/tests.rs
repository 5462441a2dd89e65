use super::{table, told};
use crate::config::labels::Labels;
use crate::volume::status::{AddedNode, DiskStatus, NodeStatus};

fn disk(id: u32, state: &str, path: &str) -> DiskStatus {
    DiskStatus {
        id,
        path: path.into(),
        state: state.into(),
        reason: None,
        total_bytes: 1,
        free_bytes: 1,
        errors: 0,
        latency_median_ms: None,
        latency_p99_ms: None,
        log: false,
        labels: Labels::default(),
    }
}

fn node(name: &str, disks: Vec<DiskStatus>, spare: &[&str]) -> NodeStatus {
    NodeStatus {
        name: name.into(),
        address: format!("{name}.lan:7440"),
        reachable: true,
        reason: None,
        disks,
        spare: spare.iter().map(|path| (*path).to_owned()).collect(),
    }
}

#[test]
fn each_disk_has_a_row_and_each_node_one_at_least() {
    let disks = vec![disk(1, "healthy", "a:/srv/d0"), disk(4, "down", "a:/srv/d1")];
    let away = NodeStatus {
        reachable: false,
        reason: Some("no answer".into()),
        ..node("c", Vec::new(), &[])
    };
    let nodes = [node("a", disks, &["a:/srv/d2"]), away];
    let expected = "\
NODE  ADDRESS     REACHABLE  DISK  STATE    PATH
a     a.lan:7440  yes        1     healthy  a:/srv/d0
                             4     down     a:/srv/d1
                             -     spare    a:/srv/d2
c     c.lan:7440  no         -     -        - (no answer)
";
    assert_eq!(table(&nodes), expected);
}

#[test]
fn what_was_added_says_what_to_do_next() {
    let check = |before: Option<&str>, configured: Option<&str>, expected: &str| {
        let (before, configured) = (before.map(str::to_owned), configured.map(str::to_owned));
        let node = node("b", Vec::new(), &["b:/srv/d0"]);
        assert_eq!(told(&AddedNode { node, before, configured }, "media"), expected);
    };
    let next = "next: ironfs disk add media b:/srv/d0\n";
    check(None, None, &format!("b is at b.lan:7440\n{next}"));
    let moved = "b is at b.lan:7440, and no longer at b.lan:1\n";
    check(Some("b.lan:1"), None, &format!("{moved}{next}"));
    let counts =
        "the configuration says b.lan:1, which counts at the next mount: correct [peer.b] there\n";
    check(Some("b.lan:1"), Some("b.lan:1"), &format!("{moved}{counts}{next}"));
}
