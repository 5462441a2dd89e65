use super::Acl;
use crate::error::Posix;

const OWNER: u16 = 1;
const USER: u16 = 2;
const OWNING_GROUP: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

fn binary(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn plain(owner: u16, group: u16, other: u16) -> Vec<(u16, u16, u32)> {
    vec![(OWNER, owner, !0), (OWNING_GROUP, group, !0), (OTHER, other, !0)]
}

fn named(owner: u16, user: u16, group: u16, mask: u16, other: u16) -> Vec<(u16, u16, u32)> {
    vec![
        (OWNER, owner, !0),
        (USER, user, 1000),
        (OWNING_GROUP, group, !0),
        (MASK, mask, !0),
        (OTHER, other, !0),
    ]
}

fn acl(entries: &[(u16, u16, u32)]) -> Acl {
    Acl::decode(&binary(entries)).unwrap().unwrap()
}

#[test]
fn valid_lists_round_trip() {
    for entries in [plain(7, 5, 0), named(6, 7, 4, 6, 0)] {
        assert_eq!(acl(&entries).encode(), binary(&entries));
    }
    assert_eq!(Acl::decode(&binary(&[])), Ok(None));
}

#[test]
fn wrong_lists_are_refused() {
    fn check(bytes: &[u8], expected: Posix) {
        assert_eq!(Acl::decode(bytes), Err(expected), "{bytes:?}");
    }
    check(b"", Posix::Invalid);
    check(&[2, 0], Posix::Invalid);
    check(&1u32.to_le_bytes(), Posix::NotSupported);
    check(&binary(&plain(7, 5, 0))[..27], Posix::Invalid);
    check(&binary(&plain(8, 5, 0)), Posix::Invalid);
    check(&binary(&plain(7, 5, 0)[..2]), Posix::Invalid);
    // Named without a mask, two owners, wrong order, nobody named, unknown tag.
    check(
        &binary(&[(OWNER, 7, !0), (USER, 7, 1), (OWNING_GROUP, 5, !0), (OTHER, 0, !0)]),
        Posix::Invalid,
    );
    check(
        &binary(&[(OWNER, 7, !0), (OWNER, 7, !0), (OWNING_GROUP, 5, !0), (OTHER, 0, !0)]),
        Posix::Invalid,
    );
    check(&binary(&[(OWNING_GROUP, 5, !0), (OWNER, 7, !0), (OTHER, 0, !0)]), Posix::Invalid);
    check(
        &binary(&[
            (OWNER, 7, !0),
            (OWNING_GROUP, 5, !0),
            (GROUP, 5, !0),
            (MASK, 7, !0),
            (OTHER, 0, !0),
        ]),
        Posix::Invalid,
    );
    check(
        &binary(&[(OWNER, 7, !0), (OWNING_GROUP, 5, !0), (64, 5, !0), (OTHER, 0, !0)]),
        Posix::Invalid,
    );
}

#[test]
fn the_mode_follows_the_list() {
    assert_eq!(acl(&plain(7, 5, 1)).mode(), 0o751);
    assert!(acl(&plain(7, 5, 1)).is_mode());
    assert_eq!(acl(&named(6, 7, 4, 2, 0)).mode(), 0o620);
    assert!(!acl(&named(6, 7, 4, 2, 0)).is_mode());
}

#[test]
fn chmod_edits_the_mask_or_the_group() {
    assert_eq!(acl(&named(6, 7, 4, 2, 0)).with_mode(0o4751), acl(&named(7, 7, 4, 5, 1)));
    assert_eq!(acl(&plain(6, 4, 0)).with_mode(0o751), acl(&plain(7, 5, 1)));
}

#[test]
fn children_inherit_no_more_than_they_ask_for() {
    let inherited = acl(&named(7, 7, 5, 7, 5)).inherit(0o644);
    assert_eq!(inherited.mode, 0o644);
    assert_eq!(inherited.access, Some(acl(&named(6, 7, 5, 4, 4))));

    let inherited = acl(&named(7, 7, 5, 5, 0)).inherit(0o2777);
    assert_eq!((inherited.mode, inherited.access), (0o2750, Some(acl(&named(7, 7, 5, 5, 0)))));

    let inherited = acl(&plain(7, 5, 0)).inherit(0o666);
    assert_eq!((inherited.mode, inherited.access), (0o640, None));
}
