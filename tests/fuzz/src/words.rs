//! What people and programs say: on the command line, in the configuration, as attributes and over the admin socket.

use ironfs::admin::{
    AddDisk, AddNode, NamedDisk, Pause, PauseJob, RemoveDisk, RepairStripe, ReplaceDisk,
};
use ironfs::class::Class;
use ironfs::config::Config;
use ironfs::config::labels::Labels;
use ironfs::config::node::NodeConfig;
use ironfs::format::{Reader, Writer};
use ironfs::fs::acl::Acl;
use ironfs::mountd::options::MountOptions;
use ironfs::volume::labels::LabelChange;
use ironfs::volume::status::Remount;
use ironfs::volume::what_if::WhatIf;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

pub(super) fn class(data: &[u8]) -> bool {
    let stored = Class::decode(&mut Reader::new(data)).ok();
    let told = text(data).and_then(|text| text.parse::<Class>().ok());
    for class in [stored, told].into_iter().flatten() {
        let mut writer = Writer::new();
        class.encode(&mut writer);
        assert!(writer.len() <= Class::STORED_BYTES_MAX);
        assert_eq!(Class::decode(&mut Reader::new(writer.as_slice())), Ok(class));
        assert_eq!(class.to_string().parse::<Class>().ok(), Some(class), "{class}");
    }
    stored.is_some() || told.is_some()
}

pub(super) fn labels(data: &[u8]) -> bool {
    let Some(labels) = text(data).and_then(|text| Labels::parse(text).ok()) else { return false };
    assert_eq!(labels.clone().validate().ok(), Some(labels));
    true
}

pub(super) fn config(data: &[u8]) -> bool {
    text(data).is_some_and(|text| Config::parse(text).is_ok())
}

pub(super) fn node_config(data: &[u8]) -> bool {
    text(data).is_some_and(|text| NodeConfig::parse(text).is_ok())
}

pub(super) fn mount_options(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let strict = MountOptions::parse(text, false);
    let sloppy = MountOptions::parse(text, true).expect("it passes over what it does not know");
    strict.is_ok_and(|strict| {
        assert_eq!(strict, sloppy);
        true
    })
}

pub(super) fn acl(data: &[u8]) -> bool {
    let Ok(Some(acl)) = Acl::decode(data) else { return false };
    assert_eq!(Acl::decode(&acl.encode()), Ok(Some(acl.clone())));
    let inherited = acl.inherit(0o7777);
    assert_eq!(inherited.mode & !0o7777, 0);
    assert_eq!(acl.clone().with_mode(acl.mode()).mode(), acl.mode());
    true
}

/// The first byte says which body it is.
pub(super) fn admin(data: &[u8]) -> bool {
    let Some((kind, body)) = data.split_first() else { return false };
    match kind % 11 {
        0 => same::<RepairStripe>(body),
        1 => same::<Pause>(body),
        2 => same::<PauseJob>(body),
        3 => same::<ReplaceDisk>(body),
        4 => same::<AddDisk>(body),
        5 => same::<NamedDisk>(body),
        6 => same::<LabelChange>(body),
        7 => same::<AddNode>(body),
        8 => same::<WhatIf>(body),
        9 => same::<Remount>(body),
        _ => same::<RemoveDisk>(body),
    }
}

fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(body: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(body) else { return false };
    let again = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&again).ok(), Some(value));
    true
}
