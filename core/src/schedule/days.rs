//! Which days a rule matches: its two day fields, months and years, as bits of one month at a time.

use super::calendar::{END, FIRST_YEAR, first_day, first_month, month_of, weekday, year_and_month};
use super::masks::{ALL_YEARS, Fields, Join, below, has, next_bit};

/// Every day of each of the seven weekdays: bit 0 of each byte.
const EVERY_ONE: u64 = 0x0001_0101_0101_0101;

impl Fields {
    /// The first matching day at or after `from`, in days since the epoch.
    #[inline]
    pub(super) fn next_day(&self, from: u32) -> Option<u32> {
        let day = match self.join {
            Join::Every => from,
            Join::Weekly => {
                let week = u32::from(self.whole_weekdays());
                let weeks = week | week << 7;
                from + (weeks >> weekday(from)).trailing_zeros()
            }
            Join::Monthly => self.next_of_month(from),
            Join::Both | Join::Either => return self.next_date(from),
        };
        (day < END).then_some(day)
    }

    /// As [`Self::next_day`], where every month and year is chosen.
    #[inline]
    fn next_of_month(&self, from: u32) -> u32 {
        let month = month_of(from);
        let (first, next) = (first_day(month), first_day(month + 1));
        let rest = self.days.checked_shr(from + 1 - first).unwrap_or_default();
        let found = from + rest.trailing_zeros();
        if rest != 0 && found < next {
            return found;
        }
        let lowest = self.days.trailing_zeros();
        let after_next = first_day(month + 2);
        // Of two months in a row one has 31 days.
        let of_next = lowest <= 28 || next + lowest <= after_next;
        lowest - 1 + if of_next { next } else { after_next }
    }

    /// As [`Self::next_day`], by the calendar: a look at each month that is chosen.
    #[inline(never)] // so that the frequent, short ways stay short
    fn next_date(&self, from: u32) -> Option<u32> {
        let mut month = month_of(from);
        let mut day = from.checked_sub(first_day(month))? + 1;
        loop {
            let (year, of_year) = year_and_month(month);
            let chosen = match next_bit(self.months.into(), of_year) {
                Some(later) if self.has_year(year) => month + later - of_year,
                _ => {
                    first_month(self.next_year(year + 1)?) + u32::from(self.months).trailing_zeros()
                        - 1
                }
            };
            if chosen > month {
                (month, day) = (chosen, 1);
            }
            let first = first_day(month);
            let found = self.days_of(month).checked_shr(day).unwrap_or_default();
            if found != 0 {
                return Some(first + day - 1 + found.trailing_zeros());
            }
            (month, day) = (month + 1, 1);
        }
    }

    /// How many matching days lie in `[from, end)`, in days since the epoch.
    pub(super) fn count_days(&self, from: u32, end: u32) -> u64 {
        let end = end.min(END);
        let mut day = from;
        let mut total = 0;
        while day < end {
            let month = month_of(day);
            let (first, next) = (first_day(month), first_day(month + 1));
            let (year, of_year) = year_and_month(month);
            if self.has_year(year) && has(self.months.into(), of_year) {
                let days = u64::from(self.days_of(month));
                total += below(days, end.min(next) - first + 1) - below(days, day - first + 1);
            }
            day = next;
        }
        total
    }

    /// The matching days of one month, bits 1 to 31.
    fn days_of(&self, month: u32) -> u32 {
        let first = first_day(month);
        let length = first_day(month + 1) - first;
        let mut by_date = self.days;
        if self.last_days | self.near_days != 0 {
            by_date |= self.last_days.reverse_bits() >> (31 - length);
            by_date |= self.near(weekday(first), length);
        }
        let by_weekday = match u64::from_le_bytes(self.padded_weekdays()) {
            EVERY_ONE => u32::MAX,
            _ => self.weekdays_of(weekday(first), length),
        };
        let days =
            if self.join == Join::Either { by_date | by_weekday } else { by_date & by_weekday };
        days & real_days(length)
    }

    /// The days chosen by weekday in a month that begins on weekday `first`.
    fn weekdays_of(&self, first: u32, length: u32) -> u32 {
        let week = u64::from(self.whole_weekdays());
        let weeks = week | week << 7 | week << 14 | week << 21 | week << 28 | week << 35;
        let mut days = (weeks >> first << 1) as u32;
        if u64::from_le_bytes(self.padded_weekdays()) & !EVERY_ONE == 0 {
            return days;
        }
        for (weekday, chosen) in (0..).zip(self.weekdays) {
            let earliest = (weekday + 7 - first) % 7 + 1;
            for n in 1..=5 {
                if chosen >> n & 1 == 1 && earliest + 7 * (n - 1) <= length {
                    days |= 1 << (earliest + 7 * (n - 1));
                }
            }
            if chosen >> 6 & 1 == 1 {
                days |= 1 << (earliest + (length - earliest) / 7 * 7);
            }
        }
        days
    }

    /// The days from Monday to Friday nearest to the chosen ones.
    fn near(&self, first: u32, length: u32) -> u32 {
        let nearest = |day: u32| match (first + day - 1) % 7 {
            0 if day == length => day - 2,
            0 => day + 1,
            6 if day == 1 => day + 2,
            6 => day - 1,
            _ => day,
        };
        let last = (first + length - 1) % 7;
        let last_working = length - [2, 0, 0, 0, 0, 0, 1].get(last as usize).unwrap_or(&0);
        let mut days = (self.near_days & 1) << last_working;
        let mut rest = self.near_days & !1;
        while rest != 0 {
            let day = rest.trailing_zeros();
            if day <= length {
                days |= 1 << nearest(day);
            }
            rest &= rest - 1;
        }
        days
    }

    fn padded_weekdays(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g] = self.weekdays;
        [a, b, c, d, e, f, g, 0]
    }

    /// The weekdays of which every one is chosen, bits 0 (Sunday) to 6.
    pub(super) fn whole_weekdays(&self) -> u8 {
        // The multiplication moves bit 0 of each byte into the highest byte, side by side.
        const GATHER: u64 = 0x0102_0408_1020_4080;
        let every = u64::from_le_bytes(self.padded_weekdays()) & EVERY_ONE;
        (every.wrapping_mul(GATHER) >> 56) as u8
    }

    fn has_year(&self, year: u32) -> bool {
        let bit = year.wrapping_sub(FIRST_YEAR);
        self.years.get(bit as usize / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    }

    fn next_year(&self, from: u32) -> Option<u32> {
        let from = from.max(FIRST_YEAR) - FIRST_YEAR;
        let [words @ .., last] = self.years;
        let rest = u128::from_le_bytes(words).checked_shr(from).unwrap_or_default();
        if rest != 0 {
            return Some(FIRST_YEAR + from + rest.trailing_zeros());
        }
        let from = from.max(128);
        let rest = last.checked_shr(from - 128).unwrap_or_default();
        (rest != 0).then(|| FIRST_YEAR + from + rest.trailing_zeros())
    }

    /// The chosen years in order.
    pub(super) fn chosen_years(&self) -> impl Iterator<Item = u32> {
        std::iter::successors(self.next_year(FIRST_YEAR), |year| self.next_year(year + 1))
    }

    /// Sets `join` to the quick form of [`Join::Both`] where there is one, so that equal rules have
    /// equal fields.
    pub(super) fn recognised(self) -> Self {
        const ALL_DAYS: u32 = !1;
        const ALL_MONTHS: u16 = 0b1_1111_1111_1110;
        let open =
            self.join != Join::Either && self.months == ALL_MONTHS && self.years == ALL_YEARS;
        let all_days = self.days == ALL_DAYS;
        let by_number = all_days || self.last_days | self.near_days == 0;
        let join = match u64::from_le_bytes(self.padded_weekdays()) {
            EVERY_ONE if open && all_days => Join::Every,
            EVERY_ONE if open && by_number => Join::Monthly,
            week if open && all_days && week & !EVERY_ONE == 0 => Join::Weekly,
            _ => self.join,
        };
        Self { join, ..self }
    }
}

/// Bits 1 to `length`, which is 28 to 31.
fn real_days(length: u32) -> u32 {
    u32::MAX >> (32 - length) << 1
}
