//! Processes as `/proc` shows them.

use std::fs;

/// Every process of the machine, zombies too.
pub(super) fn processes() -> impl Iterator<Item = Stat> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str()?;
        name.starts_with(|c: char| c.is_ascii_digit()).then(|| read(name))?
    })
}

/// The process of this id; nothing if there is none.
pub(super) fn read(pid: &str) -> Option<Stat> {
    // The command name in it is any bytes that the process likes.
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    Stat::parse(&String::from_utf8_lossy(&bytes))
}

/// The fields of `/proc/<pid>/stat` that matter here; their numbers are those of proc(5).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: i32,
    name: String,
    pub(super) runs: bool,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// Processor time of it and of the children that it has waited for, in clock ticks.
    pub(super) ticks: u64,
    /// Since boot, in clock ticks.
    pub(super) started: u64,
    /// Resident memory.
    pub(super) pages: u64,
}

impl Stat {
    /// Whether this is its name, as in /proc/PID/comm.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name
    }

    fn parse(text: &str) -> Option<Self> {
        // Field 2, the command name, is in parentheses and may itself contain `) R 1 2`.
        let (pid, rest) = text.split_once(' ')?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let number = |n| field(n)?.parse::<u64>().ok();
        Some(Self {
            pid: pid.parse().ok()?,
            name: name.strip_prefix('(')?.to_owned(),
            runs: !matches!(field(3)?, "Z" | "X" | "x"),
            parent: field(4)?.parse().ok()?,
            group: field(5)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            ticks: number(14)? + number(15)? + number(16)? + number(17)?,
            started: number(22)?,
            pages: number(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_command_is_called() {
        let tail = "S 1 77 77 0 -1 4194304 117 0 0 0 3 4 5 6 20 0 1 0 725699 3133440 394 1 1 1";
        for name in ["(cat)", "(a b)", "() R 1 2 3)", "(\u{fffd})"] {
            let stat = Stat::parse(&format!("80 {name} {tail}")).unwrap();
            let expected = Stat {
                pid: 80,
                name: name[1..name.len() - 1].to_owned(),
                runs: true,
                parent: 1,
                group: 77,
                session: 77,
                ticks: 18,
                started: 725_699,
                pages: 394,
            };
            assert_eq!(stat, expected, "{name}");
        }
        assert_eq!(Stat::parse(""), None);
        assert_eq!(Stat::parse("80 (cat) S 1"), None);
    }
}
