//! Which chord means which command, place by place: the defaults of [`crate::command::TABLE`] and
//! what the configuration changes in them.

use std::collections::{BTreeMap, HashMap};

use thiserror::Error;

use crate::command::{Command, Context, TABLE};
use crate::effect::Danger;
use crate::key::Chord;

/// What is wrong with the keys of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Conflict {
    /// Two commands on one chord in one place.
    #[error(
        "the key `{chord}` is both `{first}` and `{second}` in {place}: give one of them another key"
    )]
    Duplicate {
        /// The chord.
        chord: String,
        /// The one that has it.
        first: &'static str,
        /// The one that wants it too.
        second: &'static str,
        /// Where both are active.
        place: &'static str,
    },
    /// Not a command.
    #[error("`{0}` is not a command; `?` in the console lists them")]
    UnknownCommand(String),
    /// Not a chord.
    #[error("{command}: {message}")]
    BadKey {
        /// Whose.
        command: String,
        /// What is wrong with it.
        message: String,
    },
    /// A command that destroys, on a key that fingers press out of habit.
    #[error(
        "`{command}` cannot be on `{chord}`: no destructive command on Delete, Backspace or a Ctrl key"
    )]
    Careless {
        /// The command.
        command: &'static str,
        /// The chord.
        chord: String,
    },
}

/// Which chord means which command.
#[derive(Debug, Clone)]
pub struct Keymap {
    bound: HashMap<(Context, Chord), Command>,
    keys: BTreeMap<Command, Vec<Chord>>,
}

impl Default for Keymap {
    fn default() -> Self {
        let mut keys = BTreeMap::new();
        for spec in TABLE {
            let chords = spec.keys.iter().filter_map(|k| k.parse().ok()).collect();
            keys.insert(spec.command, chords);
        }
        Self::bind(keys)
    }
}

impl Keymap {
    /// The defaults, with the keys of some commands replaced: command name to its chords.
    ///
    /// # Errors
    /// Names every unknown command, bad chord, duplicate and careless key at once.
    pub fn with_overrides(
        overrides: &BTreeMap<String, Vec<String>>,
    ) -> Result<Self, Vec<Conflict>> {
        let mut conflicts = Vec::new();
        let mut keys = Self::default().keys;
        for (name, chords) in overrides {
            let Some(command) = Command::named(name) else {
                conflicts.push(Conflict::UnknownCommand(name.clone()));
                continue;
            };
            let mut parsed = Vec::new();
            for chord in chords {
                match chord.parse() {
                    Ok(chord) => parsed.push(chord),
                    Err(message) => {
                        conflicts.push(Conflict::BadKey { command: name.clone(), message });
                    }
                }
            }
            keys.insert(command, parsed);
        }
        let keymap = Self::bind(keys);
        conflicts.extend(keymap.conflicts());
        if conflicts.is_empty() { Ok(keymap) } else { Err(conflicts) }
    }

    fn bind(keys: BTreeMap<Command, Vec<Chord>>) -> Self {
        let mut bound = HashMap::new();
        for spec in TABLE {
            for chord in keys.get(&spec.command).into_iter().flatten() {
                for context in spec.contexts {
                    bound.entry((*context, *chord)).or_insert(spec.command);
                }
            }
        }
        Self { bound, keys }
    }

    fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for place in Context::PLACES {
            let mut seen: HashMap<Chord, &'static str> = HashMap::new();
            for spec in TABLE.iter().filter(|s| s.works_in(place)) {
                for chord in self.keys_of(spec.command) {
                    if let Some(first) = seen.insert(*chord, spec.name) {
                        let conflict = Conflict::Duplicate {
                            chord: chord.to_string(),
                            first,
                            second: spec.name,
                            place: place.title(),
                        };
                        conflicts.push(conflict);
                    }
                }
            }
        }
        for spec in TABLE.iter().filter(|s| s.danger == Danger::Destroys) {
            let careless = self.keys_of(spec.command).iter().filter(|c| c.is_careless());
            conflicts.extend(
                careless.map(|chord| Conflict::Careless {
                    command: spec.name,
                    chord: chord.to_string(),
                }),
            );
        }
        conflicts
    }

    /// What the chord means in `place`.
    pub fn command(&self, place: Context, chord: Chord) -> Option<Command> {
        place.chain().iter().find_map(|context| self.bound.get(&(*context, chord)).copied())
    }

    /// The chords of a command.
    pub fn keys_of(&self, command: Command) -> &[Chord] {
        self.keys.get(&command).map_or(&[], Vec::as_slice)
    }

    /// The first chord of a command, for hints; the palette form `:name` where it has none.
    pub fn hint(&self, command: Command) -> String {
        match (self.keys_of(command).first(), command.spec()) {
            (Some(chord), _) => chord.to_string(),
            (None, Some(spec)) => format!(":{}", spec.name),
            (None, None) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        let owned = |keys: &[&str]| keys.iter().map(|&k| k.to_owned()).collect();
        pairs.iter().map(|(name, keys)| ((*name).to_owned(), owned(keys))).collect()
    }

    #[test]
    fn the_defaults_parse_and_do_not_conflict() {
        let keymap = Keymap::default();
        assert_eq!(keymap.conflicts(), []);
        for spec in TABLE {
            assert_eq!(keymap.keys_of(spec.command).len(), spec.keys.len());
        }
    }

    #[test]
    fn a_key_means_what_its_place_says() {
        let keymap = Keymap::default();
        let chord = |text: &str| text.parse::<Chord>().unwrap();
        assert_eq!(keymap.command(Context::Workers, chord("d")), Some(Command::Drain));
        assert_eq!(keymap.command(Context::Jobs, chord("d")), None);
        assert_eq!(keymap.command(Context::History, chord("x")), None);
        assert_eq!(keymap.command(Context::Running, chord("x")), Some(Command::Kill));
        assert_eq!(keymap.command(Context::Jobs, chord("j")), Some(Command::Down));
    }

    #[test]
    fn a_duplicate_names_both() {
        let errors = Keymap::with_overrides(&overrides(&[("run", &["x"])])).unwrap_err();
        let text = errors[0].to_string();
        assert!(text.contains("`run`") && text.contains("`kill`"), "{text}");
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let wrong =
            overrides(&[("kill", &["ctrl-k"]), ("explode", &["b"]), ("down", &["hyper-j"])]);
        let errors = Keymap::with_overrides(&wrong).unwrap_err();
        assert_eq!(errors.len(), 3, "{errors:?}");
    }

    #[test]
    fn a_command_can_move_to_another_key() {
        let keymap = Keymap::with_overrides(&overrides(&[("kill", &["K"])])).unwrap();
        let chord = |text: &str| text.parse::<Chord>().unwrap();
        assert_eq!(keymap.command(Context::Running, chord("K")), Some(Command::Kill));
        assert_eq!(keymap.command(Context::Running, chord("x")), None);
    }
}
