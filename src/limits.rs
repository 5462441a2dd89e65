//! Every constant and limit of ironfs, each with its reason. Knows nothing of any other module.

/// Unit of checksum. Divides a segment into eight.
pub const BLOCK_BYTES: u32 = 8 * 1024;
/// Unit of the extent map and of compression.
pub const SEGMENT_BYTES: u32 = 64 * 1024;
/// Blocks of a raw segment; their sums fill the frame header exactly.
pub const BLOCKS_PER_SEGMENT: u32 = SEGMENT_BYTES / BLOCK_BYTES;
/// Aligned span of a file that one extent record maps.
pub const CHUNK_BYTES: u64 = 32 * 1024 * 1024;
/// Segments of a chunk.
pub const SEGMENTS_PER_CHUNK: u16 = 512;
/// Header of a frame: eight 64-bit sums.
pub const FRAME_HEADER_BYTES: u32 = 64;
/// Frames start and cells end on this boundary; the encoder works on 64-byte units.
pub const FRAME_ALIGN_BYTES: u32 = 64;
/// A raw segment with its header is exactly one cell, so a healthy 4 KiB read touches one shard.
pub const CELL_BYTES: u32 = SEGMENT_BYTES + FRAME_HEADER_BYTES;
/// Largest payload of a stripe: one chunk of raw frames.
pub const STRIPE_PAYLOAD_BYTES_MAX: u64 = SEGMENTS_PER_CHUNK as u64 * CELL_BYTES as u64;
/// Most frames in a stripe; bounds the slot table and the live bitmap (2 KiB).
pub const SLOTS_PER_STRIPE_MAX: u32 = 16 * 1024;
/// Most data shards of a scheme.
pub const DATA_SHARDS_MAX: u8 = 32;
/// Most parity shards of a scheme.
pub const PARITY_SHARDS_MAX: u8 = 16;
/// Files up to this size live in the inode record.
pub const INLINE_BYTES_MAX: u32 = 2 * 1024;
/// A small fsync puts at most this much per file into the log.
pub const HOT_FSYNC_BYTES_MAX: u32 = 64 * 1024;
/// Largest file: the chunk index is 32 bits wide (128 PiB).
pub const FILE_BYTES_MAX: u64 = CHUNK_BYTES << 32;
/// Longest name of a directory entry (POSIX NAME_MAX on Linux).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symbolic link (PATH_MAX without the final zero).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Longest value of an extended attribute (Linux XATTR_SIZE_MAX).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Longest name of an extended attribute (Linux XATTR_NAME_MAX).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Largest sum of the attribute names of one file, zeros included (Linux XATTR_LIST_MAX).
pub const XATTR_LIST_BYTES_MAX: usize = 64 * 1024;
/// Most links of a file and most sub-directories of a directory; EMLINK beyond.
pub const LINKS_MAX: u32 = 1_000_000;
/// Largest encoded command: a full chunk of frames with room to spare. Checked before allocation.
pub const COMMAND_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most chunks whose extents one command releases; larger truncates go through the reaping queue.
pub const CHUNKS_PER_COMMAND_MAX: usize = 32;
/// Most disks of a volume that one process serves.
pub const DISKS_MAX: usize = 512;
/// Most nodes that a volume knows: several times what it is meant for. With names and addresses of 40 bytes together they
/// take less than a tenth of a superblock from its disks.
pub const NODES_MAX: usize = 128;
/// Classes of a volume. Any user may ask for a new one on a directory of theirs; nobody needs this many.
pub const CLASSES_MAX: usize = 256;

const _: () = assert!(CHUNK_BYTES == SEGMENTS_PER_CHUNK as u64 * SEGMENT_BYTES as u64);
const _: () = assert!(BLOCKS_PER_SEGMENT * 8 == FRAME_HEADER_BYTES);
const _: () = assert!(CELL_BYTES.is_multiple_of(FRAME_ALIGN_BYTES));
const _: () = assert!(FILE_BYTES_MAX >= 64 << 50);
const _: () = assert!(INLINE_BYTES_MAX <= SEGMENT_BYTES && HOT_FSYNC_BYTES_MAX <= SEGMENT_BYTES);
