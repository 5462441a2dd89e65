//! One function for each decoder of bytes from outside. It must answer or refuse and never panic, and what it answers must
//! encode to what decodes to the same. `cargo test` runs them over seeds, over what was found before (`corpus/`), and over
//! changes of these.
//!
//! A sum would keep nearly all changed bytes from the code behind it, so the targets run twice: with the bytes as they are,
//! and with their sums put right.

mod algebra;
mod seeds;
mod sent;
mod stored;
mod words;

pub use seeds::seeds;

/// Answers whether the decoder has accepted the bytes.
pub type Target = fn(&[u8]) -> bool;

/// All of them, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("superblock", stored::superblock),
    ("shard_header", stored::shard_header),
    ("shard_footer", stored::shard_footer),
    ("shard_trailer", stored::shard_trailer),
    ("shard_name", stored::shard_name),
    ("index_clean", stored::index_clean),
    ("state_clean", stored::state_clean),
    ("slot_table", stored::slot_table),
    ("frame", stored::frame),
    ("log_header", stored::log_header),
    ("log_record", stored::log_record),
    ("command", stored::command),
    ("rows", stored::rows),
    ("chunk_map", stored::chunk_map),
    ("stripe_record", stored::stripe_record),
    ("wire_order", sent::order),
    ("wire_answer", sent::answer),
    ("identity", sent::identity),
    ("class", words::class),
    ("labels", words::labels),
    ("config", words::config),
    ("node_config", words::node_config),
    ("mount_options", words::mount_options),
    ("acl", words::acl),
    ("admin", words::admin),
    ("extents", algebra::extents),
    ("coder", algebra::coder),
];
