//! What becomes of a run at its end. Pure: the supervisor of a real run and the simulation's ask the
//! same questions here.

use carillon_core::claims::{Answer, Refusal};
use carillon_core::etcd::EtcdError;
use carillon_core::run::Outcome;

/// What becomes of a claimed run of which no process must be started, and why, if none must.
/// `leased`: whether its worker is still certain of the lease that it was claimed under.
pub(crate) fn must_not_start(past: bool, leased: bool) -> Option<(Outcome, &'static str)> {
    (past || !leased).then(|| late(past))
}

/// What becomes of a run that came too late to be started: `past` its deadline, or else for its lease.
pub(crate) fn late(past: bool) -> (Outcome, &'static str) {
    match past {
        true => (Outcome::Missed, "its start deadline passed after it was claimed"),
        // As the others say of the runs of a worker whose lease is gone.
        false => (Outcome::Lost, "the worker was no longer sure of its lease"),
    }
}

/// How a run's processes ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish {
    /// What that is by itself.
    pub outcome: Outcome,
    /// Whether somebody asked for it.
    pub asked_for: bool,
    /// Whether it was by a signal that a guard ends runs with.
    pub signalled: bool,
    /// Whether the run goes on without its worker's lease.
    pub continues: bool,
}

impl Finish {
    /// The run's outcome. Ended for want of the worker's lease, by itself or by its guard while it
    /// was frozen, the run is lost, as it is when another worker settles it.
    pub fn outcome(self, leased: bool) -> Outcome {
        let abandoned = match self.outcome {
            Outcome::Killed => !self.asked_for,
            Outcome::Failed => self.signalled && !self.continues,
            _ => false,
        };
        if abandoned && !leased { Outcome::Lost } else { self.outcome }
    }
}

/// What follows an answer to the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is in etcd, at this revision.
    Done(i64),
    /// The same without another attempt: nothing follows a run that somebody wanted dead.
    WithoutFollowUp,
    /// The others settled the run, unless an earlier try has ended it: what came of it is told as a
    /// late result.
    TooLate,
    /// Nothing is left to say: whoever has ended it said the same.
    Over,
    /// It is tried again.
    Again,
}

/// Whether an earlier try may have ended the run is `asked_before`.
pub(crate) fn after(
    answer: &Result<Answer, EtcdError>,
    outcome: Outcome,
    has_follow_up: bool,
    asked_before: bool,
) -> Next {
    match answer {
        Ok(Answer::Done(revision)) => Next::Done(*revision),
        Ok(Answer::Refused(Refusal::KillAsked)) if has_follow_up => Next::WithoutFollowUp,
        Ok(Answer::Refused(_)) if asked_before && outcome == Outcome::Lost => Next::Over,
        Ok(Answer::Refused(_)) => Next::TooLate,
        Err(_) => Next::Again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_must_not_start_is_missed_past_its_deadline_and_lost_without_a_lease() {
        let outcome = |past, leased| must_not_start(past, leased).map(|(outcome, _)| outcome);
        assert_eq!(outcome(false, true), None);
        assert_eq!(outcome(false, false), Some(Outcome::Lost));
        assert_eq!(outcome(true, true), Some(Outcome::Missed));
        assert_eq!(outcome(true, false), Some(Outcome::Missed));
    }

    #[test]
    fn what_ends_for_want_of_the_lease_is_lost() {
        let killed = Finish {
            outcome: Outcome::Killed,
            asked_for: false,
            signalled: true,
            continues: false,
        };
        assert_eq!((killed.outcome(false), killed.outcome(true)), (Outcome::Lost, Outcome::Killed));
        assert_eq!(Finish { asked_for: true, ..killed }.outcome(false), Outcome::Killed);
        let by_guard = Finish { outcome: Outcome::Failed, ..killed };
        assert_eq!(by_guard.outcome(false), Outcome::Lost);
        assert_eq!(by_guard.outcome(true), Outcome::Failed);
        assert_eq!(Finish { continues: true, ..by_guard }.outcome(false), Outcome::Failed);
        assert_eq!(Finish { signalled: false, ..by_guard }.outcome(false), Outcome::Failed);
        let whole = Finish { outcome: Outcome::Succeeded, ..killed };
        assert_eq!(whole.outcome(false), Outcome::Succeeded);
    }

    #[test]
    fn a_result_is_late_also_where_earlier_tries_were_not_answered() {
        let refused = Ok(Answer::Refused(Refusal::NotTheRun));
        for asked_before in [false, true] {
            let next = after(&refused, Outcome::Succeeded, true, asked_before);
            assert_eq!(next, Next::TooLate);
        }
        assert_eq!(after(&refused, Outcome::Lost, false, false), Next::TooLate);
        assert_eq!(after(&refused, Outcome::Lost, false, true), Next::Over);
    }

    #[test]
    fn an_end_is_told_until_it_is_answered_and_without_a_follow_up_after_a_kill() {
        let kill = Ok(Answer::Refused(Refusal::KillAsked));
        assert_eq!(after(&kill, Outcome::Failed, true, true), Next::WithoutFollowUp);
        assert_eq!(after(&Ok(Answer::Done(7)), Outcome::Failed, true, true), Next::Done(7));
        let silent = EtcdError::Unreachable { endpoints: String::new(), detail: String::new() };
        assert_eq!(after(&Err(silent), Outcome::Failed, true, false), Next::Again);
    }
}
