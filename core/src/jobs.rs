//! The job store: read one, write by compare-and-swap, delete. Watching is [`Etcd::feed`]'s work.

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp, TxnOpResponse};
use thiserror::Error;

use crate::etcd::{Etcd, EtcdError};
use crate::id::JobName;
use crate::job::{Job, JobEntry, Problems};

/// What a write expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// No job of that name.
    Absent,
    /// The job at this etcd revision.
    Revision(i64),
}

/// Why a job was not written.
#[derive(Debug, Error)]
pub enum SaveError {
    /// The job is wrong; nothing was sent.
    #[error("{0}")]
    Invalid(#[from] Problems),
    /// Somebody else wrote or deleted it meanwhile; nothing was written.
    #[error("{}", conflict_text(.0.as_deref()))]
    Conflict(Option<Box<JobEntry>>),
    /// etcd did not answer or refused.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

fn conflict_text(theirs: Option<&JobEntry>) -> String {
    match theirs {
        Some(entry) => format!(
            "somebody else wrote the job {} meanwhile (revision {}); nothing was overwritten",
            entry.name, entry.mod_revision
        ),
        None => "somebody else deleted the job meanwhile; nothing was written".to_owned(),
    }
}

/// Reads and writes jobs.
#[derive(Clone)]
pub struct Jobs {
    etcd: Etcd,
}

impl Jobs {
    /// The jobs of the fleet that `etcd` is connected to.
    pub fn new(etcd: Etcd) -> Self {
        Self { etcd }
    }

    /// Reads one job, broken or whole.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn get(&self, name: &JobName) -> Result<Option<JobEntry>, EtcdError> {
        let item = self.etcd.get(&self.etcd.keys().job(name)).await?;
        Ok(item.and_then(|item| {
            let value = item.value?;
            Some(JobEntry::read(name.clone(), &value, item.mod_revision, item.create_revision))
        }))
    }

    /// Writes a job and returns the revision of the write.
    ///
    /// # Errors
    /// Every problem of the job at once, a conflict with what stands there now, or etcd's error.
    pub async fn save(&self, job: &Job, expected: Expected) -> Result<i64, SaveError> {
        let name = job.check()?.name;
        let key = self.etcd.keys().job(&name);
        let text = job.to_json();
        let compare = match expected {
            Expected::Absent => Compare::create_revision(key.clone(), CompareOp::Equal, 0),
            Expected::Revision(rev) => Compare::mod_revision(key.clone(), CompareOp::Equal, rev),
        };
        let put = TxnOp::put(key.clone(), text.clone(), None);
        self.swap(&name, key, compare, put, Some(text.as_bytes())).await
    }

    /// Deletes a job that stands at `revision` and returns the revision of the deletion.
    ///
    /// # Errors
    /// A conflict where it was written meanwhile, or etcd's error.
    pub async fn delete(&self, name: &JobName, revision: i64) -> Result<i64, SaveError> {
        let key = self.etcd.keys().job(name);
        let compare = Compare::mod_revision(key.clone(), CompareOp::Equal, revision);
        let delete = TxnOp::delete(key.clone(), None);
        self.swap(name, key, compare, delete, None).await
    }

    async fn swap(
        &self,
        name: &JobName,
        key: String,
        compare: Compare,
        write: TxnOp,
        wanted: Option<&[u8]>,
    ) -> Result<i64, SaveError> {
        let read = TxnOp::get(key, None::<GetOptions>);
        let txn = Txn::new().when([compare]).and_then([write]).or_else([read]);
        let answer = self.etcd.txn(txn).await?;
        if answer.succeeded() {
            return Ok(answer.header().map_or(0, etcd_client::ResponseHeader::revision));
        }
        let theirs = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(got) => got.kvs().first().map(|kv| {
                JobEntry::read(name.clone(), kv.value(), kv.mod_revision(), kv.create_revision())
            }),
            _ => None,
        });
        match theirs {
            // The answer to an earlier try was lost: what stands there is what we wrote.
            Some(entry) if wanted == Some(entry.raw.as_slice()) => Ok(entry.mod_revision),
            theirs => Err(SaveError::Conflict(theirs.map(Box::new))),
        }
    }
}
