use super::{Labels, TAGS_MAX};
use crate::error::ErrorKind;

#[test]
fn text_round_trip() {
    let labels = Labels::parse("zone=a,tag=smr,rack=1,tag=psu=2,node=n-1,tag=smr").unwrap();
    assert_eq!(labels.tags, ["psu=2", "smr"]);
    assert_eq!(labels.to_string(), "zone=a,rack=1,node=n-1,tag=psu=2,tag=smr");
    assert_eq!(Labels::parse(&labels.to_string()).unwrap(), labels);
    assert_eq!(
        (labels.value("psu"), labels.value("ps"), labels.value("smr")),
        (Some("2"), None, None)
    );
    assert_eq!(Labels::default().to_string(), "");
    assert!(Labels::default().is_empty() && !labels.is_empty());
}

#[test]
fn bad_labels_are_refused_in_one_sentence() {
    let check = |text: &str, says: &str| {
        let error = Labels::parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains(says), "{text:?}: {error}");
    };
    check("", "\"\" is no label");
    check("colour=red", "\"colour=red\" is no label");
    check("zone=", "once, with a name");
    check("zone=a,zone=b", "once, with a name");
    check("zone=a b", "cannot be a zone");
    check(&format!("rack={}", "r".repeat(33)), "cannot be a rack");
    check("tag=", "cannot be a tag");
    check("tag=psu=", "cannot be a tag");
    check("tag=a=b=c", "cannot be a tag");
    check("tag=seventeen=letters", "cannot be a tag");
    let many: Vec<String> = (0..=TAGS_MAX).map(|number| format!("tag=t{number}")).collect();
    check(&many.join(","), "9 tags are too many");
}
