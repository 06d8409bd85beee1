//! The accepted values of the fields as bits. What they mean for days is in `days`, what for
//! instants in `compiled`.

/// Every year of the calendar.
pub(super) const ALL_YEARS: [u8; 17] = {
    let mut years = [u8::MAX; 17];
    years[16] = 0b111;
    years
};

/// One bit for each accepted value of each field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fields {
    pub(super) seconds: Sixty,
    pub(super) minutes: Sixty,
    /// Bits 0 to 23.
    pub(super) hours: u32,
    /// Bits 1 to 31.
    pub(super) days: u32,
    /// Bit n: the n-th day before the last day of the month.
    pub(super) last_days: u32,
    /// Bit d: the day from Monday to Friday nearest to the d-th; bit 0: the last one of the month.
    pub(super) near_days: u32,
    /// From Sunday. Bit 0: every one, and then no other bit; bits 1 to 5: the n-th of the month;
    /// bit 6: the last.
    pub(super) weekdays: [u8; 7],
    /// Bits 1 to 12.
    pub(super) months: u16,
    /// Bit `year - 1970`, eight to a byte.
    pub(super) years: [u8; 17],
    pub(super) join: Join,
    /// Hour and minute are fixed; else the rule follows the clock through a change.
    pub(super) fixed: bool,
}

/// How the two day fields make a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Join {
    /// Both must match, and both always do, in every month and year.
    Every,
    /// Both must match, and only weekdays are restricted, none of them to some of the month.
    Weekly,
    /// Both must match, and only days of the month are restricted, all of them by number.
    Monthly,
    /// Both must match.
    Both,
    /// One of them must match: the rule of Vixie cron when both are restricted.
    Either,
}

/// Bits 0 to 59, aligned so that a rule, its zone and its spread fill one cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sixty([u32; 2]);

impl Sixty {
    pub(super) fn new(bits: u64) -> Self {
        Self([bits as u32, (bits >> 32) as u32])
    }

    pub(super) fn bits(self) -> u64 {
        let [low, high] = self.0;
        u64::from(high) << 32 | u64::from(low)
    }
}

/// The position of the first set bit at or after `from`, which is at most 63.
pub(super) fn next_bit(mask: u64, from: u32) -> Option<u32> {
    let rest = mask >> (from & 63);
    (rest != 0).then(|| from + rest.trailing_zeros())
}

/// Whether a bit, which is at most 63, is set.
pub(super) fn has(mask: u64, bit: u32) -> bool {
    mask >> (bit & 63) & 1 == 1
}

/// How many bits below `end` are set; `end` is at most 63.
pub(super) fn below(mask: u64, end: u32) -> u64 {
    u64::from((mask & ((1 << (end & 63)) - 1)).count_ones())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_at_the_edges() {
        assert_eq!(next_bit(1 << 63, 63), Some(63));
        assert_eq!(next_bit(0, 0), None);
        assert_eq!(below(u64::MAX, 63), 63);
        assert_eq!(below(u64::MAX, 0), 0);
    }
}
