//! Whom a run runs as, and the environment it starts with.
//!
//! A run inherits nothing of the worker's own environment: a job behaves the same however its
//! worker was started, and the worker's credentials stay with the worker.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::unistd::{Uid, User, geteuid};

use super::launch::StartError;

/// The system account of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// Login name.
    pub(crate) name: String,
    /// Home directory, from the user database.
    pub(crate) home: PathBuf,
    /// The user and group to become; absent where the worker is that user already.
    pub(crate) become_ids: Option<(u32, u32)>,
    root: bool,
}

impl Account {
    /// Looks a job's user up. May wait for a name service, so it is called where blocking is allowed.
    ///
    /// # Errors
    /// There is no such user, or the worker may not become it.
    pub(crate) fn find(name: &str) -> Result<Self, StartError> {
        let own = geteuid();
        let found = User::from_name(name)
            .map_err(|e| StartError::UserLookup(name.to_owned(), e.desc()))?
            .ok_or_else(|| StartError::NoUser(name.to_owned()))?;
        if found.uid != own && !own.is_root() {
            return Err(StartError::MayNotSwitch(name.to_owned()));
        }
        Ok(Self::from_entry(found, own))
    }

    /// The worker's own account. A container may run it under an id that no database knows.
    pub(crate) fn own() -> Self {
        let uid = geteuid();
        User::from_uid(uid).ok().flatten().map_or_else(
            || Self {
                name: uid.to_string(),
                home: PathBuf::from("/"),
                become_ids: None,
                root: uid.is_root(),
            },
            |user| Self::from_entry(user, uid),
        )
    }

    fn from_entry(user: User, own: Uid) -> Self {
        Self {
            become_ids: (user.uid != own).then(|| (user.uid.as_raw(), user.gid.as_raw())),
            root: user.uid.is_root(),
            name: user.name,
            home: user.dir,
        }
    }

    /// The whole environment of a run: a base like a login's, over it the job's own variables,
    /// over those `vars`, which a job cannot forge.
    pub(crate) fn environment(
        &self,
        shell: &str,
        env: &BTreeMap<String, String>,
        vars: &[(String, String)],
    ) -> BTreeMap<String, String> {
        let path = if self.root {
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        } else {
            "/usr/local/bin:/usr/bin:/bin"
        };
        let base = [
            ("PATH", path.to_owned()),
            ("HOME", self.home.to_string_lossy().into_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("USER", self.name.clone()),
            ("LOGNAME", self.name.clone()),
            ("SHELL", shell.to_owned()),
        ];
        let mut all: BTreeMap<String, String> =
            base.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        all.extend(env.iter().map(|(k, v)| (k.clone(), v.clone())));
        all.extend(vars.iter().cloned());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_of_the_environment_win() {
        let account = Account::own();
        let env = BTreeMap::from([
            ("LANG".to_owned(), "de_DE".to_owned()),
            ("CARILLON_JOB".to_owned(), "forged".to_owned()),
        ]);
        let vars = [("CARILLON_JOB".to_owned(), "settle".to_owned())];
        let all = account.environment("/bin/sh", &env, &vars);
        assert_eq!(all["LANG"], "de_DE");
        assert_eq!(all["CARILLON_JOB"], "settle");
        assert_eq!((&all["USER"], &all["SHELL"]), (&account.name, &"/bin/sh".to_owned()));
        assert!(!all.contains_key("CARGO_TARGET_DIR"));
    }
}
