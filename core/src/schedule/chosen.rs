//! Numbers that every worker computes alike from a job's name: what `~` stands for, and by how much
//! a start is put off.
//!
//! The function is part of the schedule rules: to change it is to move every such job, so it takes
//! a new rules version.

/// A number below `size` chosen by the job's name, and by `what` and `index` too, so that the
/// minute says nothing about the hour. 0 where `size` is 0.
pub(super) fn chosen_by(name: &str, what: &str, index: usize, size: u32) -> u32 {
    let separator = [0];
    let index = (index as u64).to_le_bytes();
    let bytes = name.bytes().chain(separator).chain(what.bytes()).chain(separator).chain(index);
    ((u128::from(mixed(gathered(bytes))) * u128::from(size)) >> 64) as u32
}

/// The bytes as one number, by FNV-1a; it leaves the high bits poorly mixed.
pub(crate) fn gathered(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// By how many seconds the starts of a job are put off: less than `spread_secs`, the same for
/// every slot and on every worker, evenly spread over the names; 0 where it is 0.
///
/// ```
/// use carillon_core::schedule::spread_of;
/// assert!(spread_of("settle", 60) < 60);
/// assert_eq!(spread_of("settle", 60), spread_of("settle", 60));
/// assert_eq!(spread_of("settle", 0), 0);
/// ```
#[must_use]
pub fn spread_of(name: &str, spread_secs: u32) -> u32 {
    chosen_by(name, "spread", 0, spread_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen: another number here is another rules version.
    #[test]
    fn the_same_for_ever() {
        let found = ["settle", "", "每日清算"].map(|name| chosen_by(name, "minute", 0, 60));
        assert_eq!(found, [25, 15, 49]);
    }

    #[test]
    fn evenly_spread() {
        let mut counts = [0; 60];
        for n in 0..60_000 {
            counts[spread_of(&format!("job-{n}"), 60) as usize] += 1;
        }
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
        let differ = |n: &u32| {
            let name = format!("job-{n}");
            chosen_by(&name, "minute", 0, 60) != chosen_by(&name, "hour", 0, 60)
        };
        assert!((0..1000).filter(differ).count() > 950);
    }
}
