//! The socket in the data directory.
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::{Operator, SOCKET_FILE};
use crate::admin::{Door, serve_door};

/// A socket that is listened on.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// While it is there, nobody else uses the directory: it is this socket that goes when this does.
    _operator: Operator,
}

/// Listens on the socket of the relay's data directory, in place of one that an earlier relay has left, and gives what serves it until the relay stops.
///
/// # Errors
/// Those of the system.
pub(crate) fn listen(
    operator: Operator,
    stop: watch::Receiver<bool>,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let path = operator.directory.join(SOCKET_FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let socket = Socket {
        listener: UnixListener::bind(&path)?,
        path,
        _operator: operator.clone(),
    };
    // Who connects before is looked at, too.
    std::fs::set_permissions(&socket.path, Permissions::from_mode(0o600))?;
    Ok(async move {
        let backup = Arc::clone(&operator.backup);
        let answer = move |request: Request<Incoming>| {
            let operator = operator.clone();
            async move { operator.answer(request).await }
        };
        serve_door(&socket, answer, stop).await;
        // One that is under way notices that nobody listens; until then it has the stores.
        drop(backup.acquire().await);
    })
}

impl Door for Socket {
    type Connection = UnixStream;

    async fn next(&self) -> io::Result<Option<UnixStream>> {
        let (stream, _) = self.listener.accept().await?;
        let peer = stream.peer_cred()?.uid();
        if peer == 0 || peer == rustix::process::geteuid().as_raw() {
            return Ok(Some(stream));
        }
        tracing::warn!(uid = peer, "somebody else at the operator's socket");
        Ok(None)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The next relay replaces one that stays.
        let _ = std::fs::remove_file(&self.path);
    }
}
