//! Answers to the kernel: closures that turn a result into a reply. Know nothing of how the result came about.

use super::convert::file_attr;
use crate::fs::Attributes;
use fuser::{Errno, Generation, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyXattr};
use std::time::Duration;

/// How long the kernel may keep names and attributes: for ever, as this is the only mount of the volume.
pub(super) const TTL: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) const fn generation(attributes: &Attributes) -> Generation {
    Generation(attributes.generation as u64)
}

pub(super) fn entry_reply(
    reply: ReplyEntry,
) -> impl FnOnce(Result<Attributes, Errno>) + Send + 'static {
    move |answer| match answer {
        Ok(attributes) => reply.entry(&TTL, &file_attr(&attributes), generation(&attributes)),
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn empty_reply(reply: ReplyEmpty) -> impl FnOnce(Result<(), Errno>) + Send + 'static {
    move |answer| match answer {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn attr_reply(
    reply: ReplyAttr,
) -> impl FnOnce(Result<Attributes, Errno>) + Send + 'static {
    move |answer| match answer {
        Ok(attributes) => reply.attr(&TTL, &file_attr(&attributes)),
        Err(errno) => reply.error(errno),
    }
}

/// A value of an attribute, its size alone, or ERANGE, as the caller's buffer demands.
pub(super) fn xattr_reply(
    size: u32,
    reply: ReplyXattr,
) -> impl FnOnce(Result<Vec<u8>, Errno>) + Send + 'static {
    move |answer| match answer {
        Err(errno) => reply.error(errno),
        Ok(value) => match u32::try_from(value.len()) {
            Ok(length) if size == 0 => reply.size(length),
            Ok(length) if length <= size => reply.data(&value),
            Ok(_) | Err(_) => reply.error(Errno::ERANGE),
        },
    }
}
