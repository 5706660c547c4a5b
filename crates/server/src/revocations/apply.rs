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
