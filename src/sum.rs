//! Checksums: XXH3-64 end to end, CRC-32C for whoever serves a shard, BLAKE3 against lying peers. The only
//! module that knows the libraries for them.

#[cfg(test)]
mod tests;

/// XXH3-64 of `bytes`, seed 0 (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>).
pub fn xxh3(bytes: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(bytes)
}

/// CRC-32C (Castagnoli, RFC 3720) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(sum).expect("a CRC-32 has 32 bits")
}

/// BLAKE3 of `bytes` (<https://github.com/BLAKE3-team/BLAKE3-specs>).
pub fn blake3(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}
