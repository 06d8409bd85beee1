//! What can be taken away from the protocol, one thing at a time, to see that it is missed.

use carillon_core::steps::{Predicate, Refusal, Step, Test, Write};

/// Something that the protocol then does without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutation {
    /// Every predicate with this refusal.
    Without(Refusal),
    /// Under `forbid`, that there is no live run.
    ForbidRange,
    /// Under `replace`, that there is no newer run than is known.
    ReplaceRange,
    /// Under `replace`, that those to be killed are still live.
    ReplaceVictims,
    /// Of a skip, that the run because of which the slot is skipped is still live.
    SkipBlocking,
    /// A run is started although the lease is not certain, or another.
    SpawnUnleased,
    /// The processes of a dead or frozen worker go on.
    NoGuard,
}

impl Mutation {
    /// Whether the predicate is not compared.
    pub fn drops(self, step: &Step, p: &Predicate) -> bool {
        let runs = p.refusal == Refusal::RunsChanged;
        let claims =
            step.then.iter().any(|w| matches!(w, Write::Put(k, _) if k.contains("/running/")));
        match self {
            Self::Without(refusal) => p.refusal == refusal,
            Self::ForbidRange => runs && p.test == Test::AllCreatedBefore(1),
            Self::ReplaceRange => {
                runs && matches!(p.test, Test::AllCreatedBefore(revision) if revision > 1)
            }
            Self::ReplaceVictims => runs && claims && matches!(p.test, Test::CreatedAt(_)),
            Self::SkipBlocking => runs && !claims && matches!(p.test, Test::CreatedAt(_)),
            Self::SpawnUnleased | Self::NoGuard => false,
        }
    }
}
