//! Where a disk stands: failure domains and free tags. Words only; `placement` gives them their meaning.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Longest name of a node, rack or zone.
pub const DOMAIN_BYTES_MAX: usize = 32;
/// Longest tag: a class names one in its stored form.
pub const TAG_BYTES_MAX: usize = 16;
/// Most tags of a disk.
pub const TAGS_MAX: usize = 8;

/// Labels of a disk. An empty name means "not told": all disks without a zone count as one zone.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Labels {
    /// The machine that the disk is in; empty for the one that mounts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The rack that the machine is in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rack: String,
    /// The room or site that the rack is in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Free words, `smr`, or with a value, `psu=2`; sorted, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl Labels {
    /// Itself where `place` says which node it is: whoever serves a disk knows that better than whoever labels it. What it
    /// says of rack and zone counts where nothing else is told.
    #[must_use]
    pub fn with_place(mut self, place: &Self) -> Self {
        if !place.node.is_empty() {
            self.node.clone_from(&place.node);
        }
        for (own, told) in [(&mut self.rack, &place.rack), (&mut self.zone, &place.zone)] {
            if own.is_empty() {
                own.clone_from(told);
            }
        }
        self
    }

    /// Whether nothing is told.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Itself with the tags in order, if all words are within their limits. Error: `Refused`, naming the word.
    pub fn validate(mut self) -> Result<Self> {
        for (kind, name) in [("node", &self.node), ("rack", &self.rack), ("zone", &self.zone)] {
            if !name.is_empty() {
                validate_word(name, DOMAIN_BYTES_MAX, kind)?;
            }
        }
        self.tags.sort();
        self.tags.dedup();
        if self.tags.len() > TAGS_MAX {
            let count = self.tags.len();
            return Err(Error::refused(format!("{count} tags are too many: at most {TAGS_MAX}")));
        }
        self.tags.iter().try_for_each(|tag| validate_tag(tag))?;
        Ok(self)
    }

    /// Reads `zone=a,rack=1,node=n,tag=smr,tag=psu=2`. Error: `Refused`, naming the word.
    pub fn parse(text: &str) -> Result<Self> {
        let mut labels = Self::default();
        for item in text.split(',') {
            let place = match item.split_once('=') {
                Some(("tag", tag)) => {
                    labels.tags.push(tag.into());
                    continue;
                }
                Some(("node", name)) => (&mut labels.node, name),
                Some(("rack", name)) => (&mut labels.rack, name),
                Some(("zone", name)) => (&mut labels.zone, name),
                Some(_) | None => {
                    return Err(Error::refused(format!(
                        "{item:?} is no label: there are zone=Z, rack=R, node=N and tag=T"
                    )));
                }
            };
            if !place.0.is_empty() || place.1.is_empty() {
                return Err(Error::refused(format!("{text:?}: say {item:?} once, with a name")));
            }
            *place.0 = place.1.into();
        }
        labels.validate()
    }

    /// What the disk's tag says for `key`: `2` for `psu` if it is tagged `psu=2`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.tags.iter().find_map(|tag| tag.strip_prefix(key)?.strip_prefix('='))
    }
}

/// Checks a tag: 1 to 16 of `A-Z a-z 0-9 . _ -`, and once `=` between two such words.
pub fn validate_tag(tag: &str) -> Result<()> {
    let words = tag.splitn(2, '=');
    words.into_iter().try_for_each(|word| validate_word(word, TAG_BYTES_MAX, "tag"))?;
    if tag.len() > TAG_BYTES_MAX {
        return Err(bad_word(tag, TAG_BYTES_MAX, "tag"));
    }
    Ok(())
}

fn validate_word(word: &str, most: usize, kind: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=most).contains(&word.len()) && word.bytes().all(plain) {
        return Ok(());
    }
    Err(bad_word(word, most, kind))
}

fn bad_word(word: &str, most: usize, kind: &str) -> Error {
    let value = if kind == "tag" { ", and one = before a value" } else { "" };
    Error::refused(format!(
        "{word:?} cannot be a {kind}: use 1 to {most} letters, digits, dots, hyphens and underscores{value}"
    ))
}

impl std::fmt::Display for Labels {
    /// The form that `parse` reads; nothing if nothing is told.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let domains = [("zone", &self.zone), ("rack", &self.rack), ("node", &self.node)];
        let told = domains.into_iter().filter(|(_kind, name)| !name.is_empty());
        let words = told.chain(self.tags.iter().map(|tag| ("tag", tag)));
        for (number, (kind, word)) in words.enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{kind}={word}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
