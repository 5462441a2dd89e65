use super::{Role, SERIAL_BYTES, Wanted, create, issue, positive};
use crate::error::ErrorKind;

#[test]
fn roles_have_words() {
    for role in [Role::Node, Role::Client, Role::Admin] {
        assert_eq!(role.word().parse::<Role>().unwrap(), role);
    }
    assert_eq!("root".parse::<Role>().unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn serial_numbers_are_positive_and_full_length() {
    for first in 0..=255 {
        let mut serial = [0; SERIAL_BYTES];
        serial[0] = first;
        let serial = positive(serial);
        assert!((0x40..0x80).contains(&serial[0]));
        assert_eq!(positive(serial), serial);
    }
}

#[test]
fn names_that_are_no_names_are_refused() {
    let authority = create("test", [1; SERIAL_BYTES], 1_700_000_000).unwrap();
    for holder in ["", "-a", "a-", "A", "a.b", "a_b", "\u{e4}", &"x".repeat(33)] {
        let valid = 1_700_000_000..1_800_000_000;
        let (holder, role) = (holder.to_owned(), Role::Node);
        let wanted = Wanted { holder, role, serial: [2; SERIAL_BYTES], valid };
        assert_eq!(issue(&authority, &wanted).unwrap_err().kind(), ErrorKind::Refused);
    }
}

#[test]
fn a_key_stays_out_of_logs() {
    let authority = create("test", [1; SERIAL_BYTES], 1_700_000_000).unwrap();
    assert!(!format!("{authority:?}").contains("PRIVATE"));
}
