use super::labels::Labels;
use super::{Config, validate_name};
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
fn names() {
    for good in ["a", "iron-1", "0.x_Y", &"n".repeat(64)] {
        validate_name(good).unwrap();
    }
    for bad in ["", ".", "-o", "_x", "a/b", "a b", "\u{e4}", "a\0", &"n".repeat(65)] {
        assert_eq!(validate_name(bad).unwrap_err().kind(), ErrorKind::Refused, "{bad:?}");
    }
}
