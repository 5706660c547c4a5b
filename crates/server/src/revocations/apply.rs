//! Carries out what is newly revoked: links end, cards go, whom it concerns is told.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;
use sealwire_protocol::token::TokenClaims;
use tokio::sync::watch::Receiver;
use tokio::time::MissedTickBehavior;

use super::{List, Progress, Revocation, RevocationsError, Stamp, append, read};
use crate::clock;
use crate::hub::News;
use crate::now::Now;
use crate::shared::Shared;
use crate::storage::StorageError;

/// How often the file is looked at: live links are to close within a second.
const INTERVAL: Duration = Duration::from_millis(500);

/// Carries out what the file says whenever it has changed, and what a failure or an earlier process has left undone, until the relay stops.
pub(crate) async fn watch(shared: Arc<Shared>, mut stop: Receiver<bool>) {
    let for_ever = async {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut progress = shared.revocations.progress.lock().await;
            if let Some(file) = shared.revocations.file.clone() {
                look(&shared, file, &mut progress).await;
            }
            if let Err(error) = carry_out(&shared, &mut progress, clock::now()).await {
                tracing::error!(%error, "revocations: not everything is done yet; tried again");
            }
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = for_ever => {}
    }
}

/// Revokes something. Whoever stops waiting for it changes nothing: what is left is done by [`watch`].
pub(crate) async fn revoke(
    shared: &Shared,
    revocation: Revocation,
) -> Result<Result<(), StorageError>, RevocationsError> {
    let revocations = &shared.revocations;
    let mut progress = revocations.progress.lock().await;
    if let Some(file) = revocations.file.clone() {
        let line = revocation.clone();
        blocking(move || append(&file, &line)).await?;
    }
    let mut new = List::clone(&revocations.list());
    new.add(revocation);
    change(shared, new);
    Ok(carry_out(shared, &mut progress, clock::now()).await)
}

/// Reads the file if it has changed. What it adds counts at once; what it takes back, once it has been the same twice. What cannot be read revokes
/// nothing, and takes nothing back either.
async fn look(shared: &Shared, file: PathBuf, progress: &mut Progress) {
    let path = file.clone();
    let stamp = match blocking(move || Stamp::of(&path)).await {
        Ok(stamp) => stamp,
        Err(error) => {
            tracing::error!(%error, "revocations: the file cannot be looked at; what counted before still does");
            return;
        }
    };
    let is_same = stamp == progress.seen;
    if is_same && progress.settled {
        return;
    }
    if stamp.is_none() {
        // Whoever moves the file away has not said that anything counts again.
        tracing::error!("revocations: the file is gone; what was in it still counts");
        (progress.seen, progress.settled) = (stamp, true);
        return;
    }
    let old = shared.revocations.list();
    match blocking(move || read(&file)).await {
        Ok((list, None)) => {
            change(shared, if is_same { list } else { list.and(&old) });
            (progress.seen, progress.settled) = (stamp, is_same);
        }
        Ok((list, Some(bad))) => {
            if !is_same {
                tracing::error!(error = %bad, "revocations: the other lines count, and so does what did before");
            }
            change(shared, list.and(&old));
            (progress.seen, progress.settled) = (stamp, is_same);
        }
        Err(error) => {
            tracing::error!(%error, "revocations: what counted before still does; the file is read again");
        }
    }
}

fn change(shared: &Shared, new: List) {
    if new != *shared.revocations.list() {
        tracing::info!("revocations have changed");
        shared.revocations.set(Arc::new(new));
        // Each looks at its own token.
        shared.hub.ring_all(News::REVOCATIONS);
    }
}

/// Does what the list says and was not done before: all of it that works, also where something does not.
async fn carry_out(shared: &Shared, progress: &mut Progress, now: Now) -> Result<(), StorageError> {
    let (old, new) = (Arc::clone(&progress.carried), shared.revocations.list());
    if old == new {
        return Ok(());
    }
    let mut done = Ok(());
    for device in new.new_devices(&old) {
        done = done.and(remove_device(shared, &device, now).await);
    }
    for user in new.new_users(&old) {
        done = done.and(remove_user(shared, &user, now).await);
    }
    if new.has_new_tokens(&old) {
        done = done.and(withdraw(shared, &new, now).await);
    }
    if done.is_ok() {
        progress.carried = new;
    }
    done
}

async fn remove_device(shared: &Shared, device: &Thumbprint, now: Now) -> Result<(), StorageError> {
    if shared.directory.is_known(device)? {
        shared.remove_device(device, None, now).await?;
    }
    Ok(())
}

async fn remove_user(shared: &Shared, user: &User, now: Now) -> Result<(), StorageError> {
    for device in shared.directory.all_devices(user)? {
        shared.remove_device(&device, Some(user), now).await?;
    }
    Ok(())
}

/// Takes away the cards whose attestation is revoked. Their devices learn of it and may publish others.
async fn withdraw(shared: &Shared, list: &List, now: Now) -> Result<(), StorageError> {
    let list = list.clone();
    let covered = move |claims: &TokenClaims| list.covers(claims);
    for (user, device) in shared.directory.withdraw(covered).await? {
        shared.tell_of_devices(&user, &device, now);
        // Its token may be another than the one that attests it, and good.
        shared.hub.ring(device.as_bytes(), News::WITHDRAWN);
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sealwire_protocol::key::SigningKey;
    use tempfile::TempDir;

    use super::*;
    use crate::directory::VerifiedCard;
    use crate::mail::Mailboxes;
    use crate::revocations::Revocations;
    use crate::shared::{Issuing, Settings};
    use crate::storage::Storage;

    struct Setting {
        shared: Shared,
        directory: TempDir,
    }

    impl Setting {
        fn new(lines: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut rng = rand::rng();
            let mut shared = Shared::new(
                SigningKey::generate(&mut rng),
                Issuing::BuiltIn(Box::new(SigningKey::generate(&mut rng)), None),
                Storage::in_memory().unwrap(),
                Mailboxes::in_memory().unwrap(),
                Settings::default(),
            );
            let file = directory_file(&directory);
            fs::write(&file, lines).unwrap();
            shared.revocations = Revocations::open(file).unwrap();
            Self { shared, directory }
        }

        fn file(&self) -> PathBuf {
            directory_file(&self.directory)
        }

        async fn look(&self) {
            let mut progress = self.shared.revocations.progress.lock().await;
            look(&self.shared, self.file(), &mut progress).await;
        }

        fn list(&self) -> List {
            List::clone(&self.shared.revocations.list())
        }
    }

    fn directory_file(directory: &TempDir) -> PathBuf {
        directory.path().join("revocations.jsonl")
    }

    fn list(lines: &str) -> List {
        List::read(lines.as_bytes()).0
    }

    const ONE: &str = "{\"token\":\"1\"}\n";
    const TWO: &str = "{\"token\":\"2\"}\n";

    /// Live links are to close within a second.
    #[tokio::test(start_paused = true)]
    async fn what_another_process_revokes_counts_within_a_second() {
        let setting = Setting::new("");
        let file = setting.file();
        let shared = Arc::new(setting.shared);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let watching = tokio::spawn(watch(Arc::clone(&shared), stopped));
        tokio::time::sleep(INTERVAL * 10 + INTERVAL / 2).await;
        append(&file, &Revocation::Token("1".to_owned())).unwrap();
        let began = tokio::time::Instant::now();
        while *shared.revocations.list() != list(ONE) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(began.elapsed() < Duration::from_secs(1));
        }
        stop.send_replace(true);
        watching.await.unwrap();
    }

    /// Whoever writes the file anew has emptied it first.
    #[tokio::test]
    async fn what_the_file_takes_back_counts_until_it_is_the_same_twice() {
        let setting = Setting::new(ONE);
        fs::write(setting.file(), "").unwrap();
        setting.look().await;
        assert_eq!(setting.list(), list(ONE));
        fs::write(setting.file(), TWO).unwrap();
        setting.look().await;
        assert_eq!(setting.list(), list(&format!("{ONE}{TWO}")));
        setting.look().await;
        assert_eq!(setting.list(), list(TWO));
    }

    #[tokio::test]
    async fn what_was_added_since_the_start_is_seen_at_the_first_look() {
        let setting = Setting::new("");
        append(&setting.file(), &Revocation::Token("1".to_owned())).unwrap();
        setting.look().await;
        assert_eq!(setting.list(), list(ONE));
    }

    #[tokio::test]
    async fn file_that_is_gone_or_has_a_bad_line_takes_nothing_back() {
        let setting = Setting::new(ONE);
        fs::write(setting.file(), format!("{{}}\n{TWO}")).unwrap();
        for _ in 0..3 {
            setting.look().await;
            assert_eq!(setting.list(), list(&format!("{ONE}{TWO}")));
        }
        fs::remove_file(setting.file()).unwrap();
        for _ in 0..3 {
            setting.look().await;
            assert_eq!(setting.list(), list(&format!("{ONE}{TWO}")));
        }
    }

    /// As when whoever has called `Relay::revoke` does not wait for it.
    #[tokio::test]
    async fn what_counts_and_was_not_carried_out_is_at_the_next_look() {
        let setting = Setting::new("");
        let shared = &setting.shared;
        let (user, device) = (User::new("bob").unwrap(), Thumbprint::from_bytes([7; 32]));
        let now = clock::now();
        let card = VerifiedCard {
            id: 1,
            issued: now.seconds(),
            attested: now.seconds(),
            card: vec![1],
        };
        shared
            .directory
            .publish_card(&user, &device, card)
            .await
            .unwrap();
        change(shared, list("{\"user\":\"bob\"}"));
        assert_eq!(shared.directory.all_devices(&user).unwrap(), [device]);
        let mut progress = shared.revocations.progress.lock().await;
        carry_out(shared, &mut progress, now).await.unwrap();
        assert!(shared.directory.all_devices(&user).unwrap().is_empty());
        assert!(shared.directory.is_removed(&device).unwrap());
        assert_eq!(*progress.carried, setting.list());
    }
}
