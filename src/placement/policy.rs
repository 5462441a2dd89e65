//! The placement rule of a class, as words: `place:round-robin`, `avoid:smr`, `apart:psu`. Knows no disk.

use crate::config::labels::{Labels, TAG_BYTES_MAX, validate_tag};
use crate::error::{Error, Result};
use crate::format::{Decoded, FormatError, Reader, Writer};
use std::fmt;

/// In which order a stripe asks for disks. Domains are kept apart whatever the rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Rule {
    /// A hash order that follows capacity, and hardly changes with the members.
    #[default]
    Ring = 0,
    /// Drawn for each stripe, by free space as it is: a new disk gets most of what is written.
    Random = 1,
    /// One disk after the other, whatever their sizes.
    RoundRobin = 2,
    /// Disks of this machine before others, as far as its loss can be survived.
    LocalFirst = 3,
}

impl Rule {
    const ALL: [Self; 4] = [Self::Ring, Self::Random, Self::RoundRobin, Self::LocalFirst];

    /// Its word in the text form of a class.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::LocalFirst => "local-first",
        }
    }

    /// The rule with this word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }
}

/// A tag of disks, as a class names it: zeros fill it up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag([u8; TAG_BYTES_MAX]);

impl Tag {
    /// The tag with this text. Error: `Refused`, a sentence.
    pub fn new(text: &str) -> Result<Self> {
        validate_tag(text)?;
        let mut bytes = [0; TAG_BYTES_MAX];
        bytes.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
        Ok(Self(bytes))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        let text = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

/// How a class places its stripes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Order of the disks.
    pub rule: Rule,
    /// Disks with this tag are never used.
    pub avoid: Option<Tag>,
    /// A key of tags: disks with the same value for it (`psu=2`) are a domain of their own kind, across zones, racks
    /// and nodes. A stripe spreads over as many values as it can; a disk without the key stands alone.
    pub apart: Option<Tag>,
}

impl Policy {
    /// The default: the ring, on all disks.
    pub const RING: Self = Self { rule: Rule::Ring, avoid: None, apart: None };

    /// Whether a disk with these labels may be used.
    pub fn allows(&self, labels: &Labels) -> bool {
        self.avoid.is_none_or(|avoid| labels.tags.iter().all(|tag| tag != avoid.as_str()))
    }

    /// Takes one option of the text form of a class: `place`, `avoid` or `apart`, and what stands behind its colon.
    /// Answers whether it is one of these. Error: `Refused`, a sentence.
    pub fn set(&mut self, option: &str, value: &str) -> Result<bool> {
        match option {
            "place" => {
                let names: Vec<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
                self.rule = Rule::from_name(value).ok_or_else(|| {
                    Error::refused(format!("{value:?} is no placement rule: {}", names.join(", ")))
                })?;
            }
            "avoid" => self.avoid = Some(Tag::new(value)?),
            "apart" if value.contains('=') => {
                return Err(Error::refused(format!(
                    "apart:{value} names a value: say the key alone, such as apart:psu"
                )));
            }
            "apart" => self.apart = Some(Tag::new(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Appends the stored form: rule u8, then the two tags, each a length u8 (0 for none) and its bytes.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u8(self.rule as u8);
        for tag in [&self.avoid, &self.apart] {
            let text = tag.as_ref().map_or("", Tag::as_str);
            writer.u8(u8::try_from(text.len()).unwrap_or(0));
            writer.raw(text.as_bytes());
        }
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let code = reader.u8()?;
        let rule = Rule::ALL.into_iter().find(|rule| *rule as u8 == code);
        let rule = rule.ok_or(FormatError::Invalid("placement rule"))?;
        let (avoid, apart) = (decode_tag(reader)?, decode_tag(reader)?);
        if apart.is_some_and(|key| key.as_str().contains('=')) {
            return Err(FormatError::Invalid("key of a class"));
        }
        Ok(Self { rule, avoid, apart })
    }
}

fn decode_tag(reader: &mut Reader<'_>) -> Decoded<Option<Tag>> {
    let bytes = reader.u8()?;
    if bytes == 0 {
        return Ok(None);
    }
    let text = reader.take(usize::from(bytes))?;
    let text =
        std::str::from_utf8(text).map_err(|_error| FormatError::Invalid("tag of a class"))?;
    Tag::new(text).map(Some).map_err(|_sentence| FormatError::Invalid("tag of a class"))
}

impl fmt::Display for Policy {
    /// The options of the text form, each behind a comma; nothing for the default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rule != Rule::Ring {
            write!(f, ",place:{}", self.rule.name())?;
        }
        for (name, tag) in [("avoid", &self.avoid), ("apart", &self.apart)] {
            if let Some(tag) = tag {
                write!(f, ",{name}:{}", tag.as_str())?;
            }
        }
        Ok(())
    }
}
