//! Lists of keys: pages of one revision, begun anew where that revision is compacted away.

use etcd_client::GetOptions;

use super::{Clients, Etcd, EtcdError, FIRST_PAUSE, jittered};
use crate::replica::{Feed, Item};

/// How often a list is begun before it fails because its revision is gone, or not there yet.
const LIST_TRIES: u32 = 5;
/// Keys per page of a list, at first: the fastest size measured for 100,000 keys (0.49 s).
const PAGE: i64 = 5_000;
/// The most keys of one, of a long list: etcd counts all the keys that are left for each page, so
/// that 400 pages of two million keys took 53 s.
const LONGEST_PAGE: i64 = 20_000;
/// A list of more than so many pages has longer ones.
const PAGES: i64 = 40;
/// About how large a page may be where the one before it was of keys as large, in bytes.
const PAGE_BYTES: i64 = 8 << 20;

/// A whole list.
pub(crate) struct Listed {
    revision: i64,
    cluster: u64,
    pub(crate) items: Vec<Item>,
}

impl Etcd {
    /// The whole state, as one snapshot.
    ///
    /// # Errors
    /// When etcd does not answer or refuses.
    pub async fn snapshot(&self) -> Result<Feed, EtcdError> {
        let prefix = self.keys.all();
        let Listed { revision, cluster, items } = self.list(&prefix).await?;
        Ok(Feed::Snapshot { revision, cluster, items })
    }

    /// Lists every key under `prefix` in pages of one revision.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Listed, EtcdError> {
        let mut listed = Listed { revision: 0, cluster: 0, items: Vec::new() };
        let mut pages = self.pages(prefix);
        while let Some(mut page) = pages.next().await? {
            if listed.revision != pages.revision {
                // The first page, or the first again.
                let Pages { revision, cluster, .. } = pages;
                listed = Listed { revision, cluster, items: Vec::new() };
            }
            listed.items.append(&mut page);
        }
        Ok(listed)
    }

    pub(super) fn pages(&self, prefix: &str) -> Pages {
        let begin = prefix.as_bytes().to_vec();
        Pages {
            etcd: self.clone(),
            from: Some(begin.clone()),
            end: range_end(&begin),
            begin,
            revision: 0,
            cluster: 0,
            keys: 0,
            limit: PAGE,
            tries: LIST_TRIES,
        }
    }
}

/// The keys of a range in pages of one revision.
pub(super) struct Pages {
    etcd: Etcd,
    begin: Vec<u8>,
    end: Vec<u8>,
    /// Where the next page begins, unless there is none.
    pub(super) from: Option<Vec<u8>>,
    /// The revision of all pages; 0 before the first. Another one says that the list was begun
    /// anew.
    pub(super) revision: i64,
    pub(super) cluster: u64,
    /// How many there are.
    keys: i64,
    /// How many keys the next page has.
    limit: i64,
    /// How often it may still be begun.
    tries: u32,
}

impl Pages {
    /// The next page. One is never empty, unless it is the only one.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Item>>, EtcdError> {
        loop {
            let Some(from) = self.from.clone() else { return Ok(None) };
            match self.page(from).await {
                Err(e) if e.lacks_revision() && self.tries > 1 => self.etcd.count(&e.to_string()),
                page => return page.map(Some),
            }
            self.tries -= 1;
            (self.from, self.revision) = (Some(self.begin.clone()), 0);
            tokio::time::sleep(jittered(FIRST_PAUSE)).await;
        }
    }

    async fn page(&mut self, from: Vec<u8>) -> Result<Vec<Item>, EtcdError> {
        let (end, revision, mut limit) = (self.end.clone(), self.revision, self.limit);
        let get = |mut to: Clients| {
            let mut options = GetOptions::new().with_range(end.clone()).with_limit(limit);
            if revision > 0 {
                options = options.with_revision(revision);
            }
            // It may have been too much for one call.
            limit = (limit / 2).max(1);
            let from = from.clone();
            async move { to.kv.get(from, Some(options)).await }
        };
        let mut answer = self.etcd.retried(get).await?;
        if revision == 0
            && let Some(header) = answer.header()
        {
            (self.revision, self.cluster) = (header.revision(), header.cluster_id());
            self.keys = answer.count();
        }
        let last = answer.kvs().last().filter(|_| answer.more());
        self.from = last.map(|last| [last.key(), &[0]].concat());
        let items: Vec<Item> = answer.take_kvs().into_iter().map(Item::from).collect();
        self.limit = next_limit(&items, self.keys);
        Ok(items)
    }
}

/// How many keys the page after this one has, of a list of so many keys.
fn next_limit(page: &[Item], keys: i64) -> i64 {
    let bytes: usize = page.iter().map(Item::size).sum();
    let each = i64::try_from(bytes / page.len().max(1)).unwrap_or(PAGE_BYTES).max(1);
    (keys / PAGES).clamp(PAGE, LONGEST_PAGE).min(PAGE_BYTES / each).max(1)
}

/// The end of the range of all keys that begin with `prefix`.
fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_longer_where_there_are_many_keys_and_shorter_where_they_are_large() {
        let item = |bytes| {
            let value = Some(vec![0; bytes]);
            Item { key: Vec::new(), value, mod_revision: 1, create_revision: 1, lease: 0 }
        };
        assert_eq!(next_limit(&[item(100)], 100_000), PAGE);
        assert_eq!(next_limit(&[item(100)], 2_000_000), LONGEST_PAGE);
        assert_eq!(next_limit(&[item(1 << 10)], 2_000_000), 8 << 10);
        assert_eq!(next_limit(&[item(1 << 20)], 100), 8);
        assert_eq!(next_limit(&[item(100 << 20)], 100), 1);
        assert_eq!(next_limit(&[], 0), PAGE);
    }

    #[test]
    fn the_range_of_a_prefix_ends_after_its_last_key() {
        assert_eq!(range_end(b"/cron/"), b"/cron0");
        assert_eq!(range_end(b"a\xff"), b"b");
        assert_eq!(range_end(b"\xff"), b"\0");
    }
}
