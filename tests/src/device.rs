//! A device with its client, and what is left of it while it is away.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sealwire_client::{
    Client, ClientBuilder, Error, Event, FileStore, Message, NoToken, Receipt, Received, Store,
    StoreKey, Thumbprint, TokenProvider, TrustedIssuer,
};

use crate::{Whereabouts, within};

type Tokens = Arc<Mutex<dyn FnMut(Thumbprint) -> Result<String, NoToken> + Send>>;

/// What lets a device in.
#[derive(Clone)]
pub enum Credential {
    /// Its enrolment with the built-in issuer.
    Enrolment,
    /// The code of an invitation.
    Invite(Vec<u8>),
    /// Somebody who gives tokens.
    Tokens(Tokens),
    /// Somebody who gives tokens that the relay exchanges.
    Exchanged(Tokens),
}

impl Credential {
    /// Asks `give` whenever a token is needed.
    pub fn tokens(
        give: impl FnMut(Thumbprint) -> Result<String, NoToken> + Send + 'static,
    ) -> Self {
        Self::Tokens(Arc::new(Mutex::new(give)))
    }

    /// Likewise, for tokens that the relay exchanges.
    pub fn exchanged(
        give: impl FnMut(Thumbprint) -> Result<String, NoToken> + Send + 'static,
    ) -> Self {
        Self::Exchanged(Arc::new(Mutex::new(give)))
    }
}

/// A device that is not connected.
#[derive(Clone)]
pub struct Account {
    /// Where it connects to.
    pub whereabouts: Whereabouts,
    /// Whom it trusts to attest devices.
    pub issuer: TrustedIssuer,
    /// What lets it in.
    pub credential: Credential,
    /// What its store is encrypted under.
    pub key: [u8; 32],
    path: PathBuf,
    elsewhere: Option<Arc<dyn Fn() -> Box<dyn Store> + Send + Sync>>,
}

/// A device that is connected.
pub struct Device {
    /// Its client.
    pub client: Client,
    account: Account,
}

fn asking(tokens: &Tokens) -> impl TokenProvider {
    let tokens = Arc::clone(tokens);
    move |device: Thumbprint| {
        let token = (tokens.lock().unwrap())(device);
        async move { token }
    }
}

impl Account {
    /// A new device whose store is a file in `folder`.
    pub fn new(
        whereabouts: Whereabouts,
        issuer: TrustedIssuer,
        credential: Credential,
        folder: &Path,
    ) -> Self {
        Self {
            whereabouts,
            issuer,
            credential,
            key: rand::random(),
            path: folder.join(format!("{:016x}.store", rand::random::<u64>())),
            elsewhere: None,
        }
    }

    /// The same device with its store elsewhere.
    #[must_use]
    pub fn storing(self, open: impl Fn() -> Box<dyn Store> + Send + Sync + 'static) -> Self {
        Self {
            elsewhere: Some(Arc::new(open)),
            ..self
        }
    }

    /// The same device, as it is now, on another disk.
    #[must_use]
    pub fn copied(&self) -> Self {
        let path = self.path.with_extension("copy");
        std::fs::copy(&self.path, &path).unwrap();
        Self {
            path,
            ..self.clone()
        }
    }

    /// What its client is made of.
    pub fn builder(&self) -> ClientBuilder {
        let builder = Client::builder(&self.whereabouts.address)
            .store(self.store(), StoreKey::from_bytes(self.key))
            .issuer(self.issuer.clone())
            .tls(self.whereabouts.tls.clone());
        match &self.credential {
            Credential::Enrolment => builder,
            Credential::Invite(code) => builder.invite(code),
            Credential::Tokens(tokens) => builder.token(asking(tokens)),
            Credential::Exchanged(tokens) => builder.exchange(asking(tokens)),
        }
    }

    fn store(&self) -> Box<dyn Store> {
        match &self.elsewhere {
            Some(open) => open(),
            None => Box::new(FileStore::open(&self.path).unwrap()),
        }
    }

    /// Connects: when this returns, others can write to it.
    pub async fn arrive(self) -> Device {
        let client = within("the connection", self.builder().connect())
            .await
            .unwrap();
        Device {
            client,
            account: self,
        }
    }

    /// Tries to connect, which has to fail.
    pub async fn is_refused(&self) -> Error {
        match within("a refusal", self.builder().connect()).await {
            Err(error) => error,
            Ok(client) => panic!("it was let in: {client:?}"),
        }
    }
}

impl Device {
    /// A device of a client that has been made in another way.
    pub fn new(client: Client, account: Account) -> Self {
        Self { client, account }
    }

    /// Its identity.
    pub fn thumbprint(&self) -> Thumbprint {
        self.client.device_thumbprint()
    }

    /// Sends a text, which the relay has to take.
    pub async fn send(&self, user: &str, text: &str) -> Receipt {
        within(
            "a message to be accepted",
            self.client.send(user, Message::text(text)),
        )
        .await
        .unwrap()
    }

    /// Sends a text, which has to fail.
    pub async fn cannot_send(&self, user: &str, text: &str) -> Error {
        self.cannot_send_message(user, Message::text(text)).await
    }

    /// Sends a message, which has to fail.
    pub async fn cannot_send_message(&self, user: &str, message: Message) -> Error {
        within("a message to be refused", self.client.send(user, message))
            .await
            .expect_err("it was sent")
    }

    /// The next event that `pick` takes; those before it are passed over.
    pub async fn next<T>(&self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let hearing = async {
            while let Some(event) = self.client.next().await {
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
            panic!(
                "the client was closed before {what} came: {:?}",
                self.client.connection()
            )
        };
        within(what, hearing).await
    }

    /// The next message, acknowledged.
    pub async fn message(&self) -> Received {
        let pick = |event| match event {
            Event::Message(received) => Some(received),
            _ => None,
        };
        let received = self.next("a message", pick).await;
        received.ack();
        received
    }

    /// Makes another user one who has written to this one, and the reverse: nobody tells a stranger what has arrived.
    pub async fn meet(&self, user: &str, other: &Self, own: &str) {
        self.send(user, "hello").await;
        other.message().await;
        other.send(own, "hello").await;
        self.message().await;
    }

    /// The text of the next message, and who sent it.
    pub async fn text(&self) -> (String, String) {
        let received = self.message().await;
        let text = received.message.as_text().expect("a text").to_owned();
        (received.from.to_string(), text)
    }

    /// Goes away, having confirmed what it was shown.
    pub async fn leave(self) -> Account {
        within("the client to close", self.client.close()).await;
        self.account
    }
}
