//! The one place that decides whether an effect may leave the console.
//!
//! The backend takes [`Admitted`] effects only, and only [`admit`] makes them: no view and no
//! command can forget to ask.

use thiserror::Error;

use crate::effect::{Danger, Effect};

/// An effect that may happen.
#[derive(Debug)]
pub struct Admitted(Effect);

impl Admitted {
    /// The effect.
    pub fn into_effect(self) -> Effect {
        self.0
    }

    /// The effect, to look at.
    pub fn effect(&self) -> &Effect {
        &self.0
    }
}

/// An effect that may not happen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this console is read-only: it does not {0}")]
pub struct Refused(String);

/// Admits `effect`, unless the console is read-only and the effect would change something.
///
/// # Errors
/// Says what was refused.
pub fn admit(effect: Effect, read_only: bool) -> Result<Admitted, Refused> {
    if read_only && effect.danger() > Danger::Reads {
        return Err(Refused(effect.describe()));
    }
    Ok(Admitted(effect))
}

#[cfg(test)]
mod tests {
    use carillon_core::id::{JobName, RunId, WorkerId};
    use chrono::Utc;

    use super::*;

    #[test]
    fn read_only_lets_nothing_through_that_changes_anything() {
        let job = JobName::new("a").unwrap();
        let run = RunId::new(Utc::now());
        let worker = WorkerId::new("w").unwrap();
        let changing = [
            Effect::Kill(vec![(job.clone(), run)]),
            Effect::DeleteJobs(vec![(job.clone(), 1)]),
            Effect::RunNow(vec![job]),
            Effect::Drain { worker, on: false },
        ];
        for effect in changing {
            assert!(admit(effect.clone(), false).is_ok());
            let refused = admit(effect, true).unwrap_err();
            assert!(refused.to_string().starts_with("this console is read-only"));
        }
        assert!(admit(Effect::CloseLog { run }, true).is_ok());
    }
}
