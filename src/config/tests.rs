use super::labels::Labels;
use super::{ADDRESS_BYTES_MAX, Config, Peer, validate_address, validate_name};
use crate::error::ErrorKind;
use std::path::PathBuf;

fn check_refused(text: &str, says: &str) {
    let error = Config::parse(text).expect_err("a bad configuration").to_string();
    assert!(error.contains(says), "{error:?} should say {says:?}");
}

#[test]
fn text_round_trip() {
    let config = Config::new("media", vec![PathBuf::from("/d/0"), PathBuf::from("/d/1")]);
    assert_eq!(Config::parse(&config.to_text().unwrap()).unwrap(), config);
    let labels = Labels::parse("zone=a,rack=1,tag=smr").unwrap();
    let config = Config { node: "n1".into(), disk: [("/d/1".into(), labels)].into(), ..config };
    assert_eq!(Config::parse(&config.to_text().unwrap()).unwrap(), config);
}

#[test]
fn disks_have_labels() {
    let text =
        "name = 'a'\ndisks = ['/d', '/e']\n[disk.'/d']\nzone = 'z'\ntags = ['smr', 'psu=2']\n";
    let config = Config::parse(text).unwrap();
    let labels = config.labels(std::path::Path::new("/d")).unwrap();
    assert_eq!(labels, Labels::parse("zone=z,tag=psu=2,tag=smr").unwrap());
    assert!(config.labels(std::path::Path::new("/e")).unwrap().is_empty());
}

#[test]
fn limits_have_defaults() {
    let config = Config::parse("name = 'a'\ndisks = ['/d']\n[limits]\ndirty_mib = 100\n").unwrap();
    assert_eq!((config.limits.dirty_mib, config.limits.read_cache_mib), (100, 128));
}

#[test]
fn an_address_for_metrics_is_kept_and_absent_by_default() {
    let mut config = Config::new("media", vec![PathBuf::from("/d")]);
    assert!(!config.to_text().unwrap().contains("metrics_listen"));
    config.metrics_listen = Some("[::1]:9464".parse().unwrap());
    let text = config.to_text().unwrap();
    assert!(text.contains("\nmetrics_listen = \"[::1]:9464\"\n"), "{text}");
    assert_eq!(Config::parse(&text).unwrap(), config);
    for bad in ["'localhost'", "'localhost:9464'", "9464", "'127.0.0.1'", "'127.0.0.1:0'"] {
        check_refused(
            &format!("name = 'a'\ndisks = ['/d']\nmetrics_listen = {bad}"),
            "metrics_listen",
        );
    }
}

#[test]
fn bad_text_is_refused_with_the_key() {
    check_refused("name = 'a'", "disks");
    check_refused("name = 'a'\ndisks = []", "lists no disks");
    check_refused("name = 'a b'\ndisks = ['/d']", "name");
    check_refused("name = 'a'\ndisks = ['d']", "absolute");
    check_refused("name = 'a'\ndisks = ['/d', '/e', '/d']", "twice");
    check_refused("name = 'a'\ndisks = ['/d']\ncolour = 1", "colour");
    check_refused("name = 'a'\ndisks = ['/d']\n[limits]\ndirty = 1", "dirty");
    check_refused("name = 'a'\ndisks = ['/d']\n[limits]\ndirty_mib = 1", "from 64 to 65536");
    check_refused("name = 'a'\ndisks = ['/d']\n[disk.'/e']\nzone = 'z'", "not listed in disks");
    check_refused("name = 'a'\ndisks = ['/d']\n[disk.'/d']\nroom = 'z'", "room");
    check_refused("name = 'a'\ndisks = ['/d']\n[disk.'/d']\ntags = ['a b']", "cannot be a tag");
    check_refused("name = 'a'\nnode = '/'\ndisks = ['/d']", "cannot be a node");
    check_refused("= nonsense", "configuration");
}

#[test]
fn addresses_of_nodes_have_a_host_and_a_port() {
    let check = |told: &str, expected: &str| {
        let address = Peer { address: told.into() }.host_and_port();
        assert_eq!(address, expected);
        validate_address(&address).unwrap();
        let text = format!(
            "name = 'a'\ndisks = ['n:/d']\nidentity = '/i'\n[peer.n]\naddress = '{told}'\n"
        );
        let known = Config::parse(&text).unwrap().addresses();
        assert_eq!(known, [("n".into(), expected.into())].into());
    };
    check("10.0.0.2", "10.0.0.2:7440");
    check("10.0.0.2:9", "10.0.0.2:9");
    check("nas.example.org", "nas.example.org:7440");
    check("[fd00::3]:9", "[fd00::3]:9");
    check("fd00::3:ab", "fd00::3:ab:7440");
    let longest = format!("{}:65535", "h".repeat(ADDRESS_BYTES_MAX - 6));
    check(&longest, &longest);
    for bad in ["", "a b", "a:0", "a\tb:1", &format!("h{longest}")] {
        let text = format!("name = 'a'\ndisks = ['/d']\n[peer.n]\naddress = {bad:?}\n");
        check_refused(&text, "peer.n.address");
    }
}

#[test]
fn names() {
    for good in ["a", "iron-1", "0.x_Y", &"n".repeat(64)] {
        validate_name(good).unwrap();
    }
    for bad in ["", ".", "-o", "_x", "a/b", "a b", "\u{e4}", "a\0", &"n".repeat(65)] {
        assert_eq!(validate_name(bad).unwrap_err().kind(), ErrorKind::Refused, "{bad:?}");
    }
}
