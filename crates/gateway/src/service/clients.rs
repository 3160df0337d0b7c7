//! The stage that speaks with clients.

use ultramotion_igtlink::{ClientId, Message, RecvError, ServerEvent};

use super::{Shared, TICK};
use crate::send::{Dialogue, Guests, header_version};
use crate::supervise::BoxError;

impl Shared {
    /// Greets clients, and answers what they ask.
    pub(super) fn serve_clients(&self) -> Result<(), BoxError> {
        let dialogue =
            Dialogue::new(self.names.status, header_version(&self.config.output), &self.config.output);
        let mut guests = Guests::default();
        while !self.stop.is_set() {
            match self.server.recv_timeout(TICK) {
                Ok(ServerEvent::Connected { client, peer }) => {
                    tracing::info!("client {client} connected from {peer}");
                    guests.came(client, peer.ip());
                    if self.config.output.status {
                        self.reply(client, &self.status.message());
                    }
                }
                Ok(ServerEvent::Disconnected { client, reason }) => {
                    tracing::info!("client {client} went: {reason}");
                    if let Some(peer) = guests.gone(client, reason).filter(|_| self.config.output.version > 1)
                    {
                        self.source.complaints.say(
                            "output_version",
                            format_args!(
                                "clients from {peer} leave right after our first message, which has header version 2; if \
                                 they are older than 2017, set output.version = 1"
                            ),
                        );
                    }
                }
                Ok(ServerEvent::Refused { peer, by_allow_list }) => {
                    let why =
                        if by_allow_list { "not in output.allow" } else { "output.max_clients are there" };
                    let problem = format_args!("a client from {peer} was refused: {why}");
                    self.source.complaints.say("client_refused", problem);
                }
                Ok(ServerEvent::Rejected { client, error }) => {
                    let problem = format_args!("client {client} sent no message: {error}");
                    self.source.complaints.say("client_rejected", problem);
                }
                Ok(ServerEvent::Message { client, raw }) => match raw.decode() {
                    Ok(message) => {
                        guests.heard(client, message.version);
                        if let Some(answer) = dialogue.answer(&message, &self.status, &self.parameters) {
                            self.reply(client, &answer);
                        }
                    }
                    Err(error) => self.server.count_rejected(&error),
                },
                Err(RecvError::Timeout) => {}
                Err(RecvError::Closed) => break,
            }
        }
        Ok(())
    }

    fn reply(&self, client: ClientId, message: &Message<'_>) {
        // Fails when the client is gone again, which is no one's fault.
        let _ = self.server.send_to(client, message);
    }
}
