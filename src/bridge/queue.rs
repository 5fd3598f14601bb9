//! Messages on their way to somebody who may be slow: so many, and so many bytes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The end that messages are put in at.
#[derive(Clone)]
pub struct Sender {
    messages: mpsc::Sender<Waiting>,
    room: Room,
}

/// The end that they are taken out at.
pub struct Receiver(mpsc::Receiver<Waiting>);

struct Waiting {
    message: Vec<u8>,
    /// Given back once it no longer waits.
    _place: OwnedSemaphorePermit,
}

/// The message was not put in: there is no room for it, or nobody takes it out.
#[derive(Debug)]
pub struct NotSent;

/// Room for so many bytes. A message that is larger takes all of it, so that each has its turn.
#[derive(Clone)]
pub struct Room {
    places: Arc<Semaphore>,
    bytes: u32,
}

impl Room {
    /// Room for this many bytes.
    pub fn new(bytes: usize) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        Self { places: Arc::new(Semaphore::new(usize::try_from(bytes).unwrap_or(usize::MAX))), bytes }
    }

    /// Takes what a message needs, unless something else has it.
    pub fn try_take(&self, message: &[u8]) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_many_owned(self.needed(message)).ok()
    }

    fn needed(&self, message: &[u8]) -> u32 {
        u32::try_from(message.len()).unwrap_or(u32::MAX).min(self.bytes)
    }
}

/// A queue for so many messages, of so many bytes together.
pub fn bounded(messages: usize, bytes: usize) -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(messages);
    (Sender { messages: sender, room: Room::new(bytes) }, Receiver(receiver))
}

impl Sender {
    /// Puts a message in if there is room.
    pub fn try_send(&self, message: Vec<u8>) -> Result<(), NotSent> {
        let place = self.room.try_take(&message).ok_or(NotSent)?;
        self.messages.try_send(Waiting { message, _place: place }).map_err(|_| NotSent)
    }

    /// Puts a message in once there is room.
    pub async fn send(&self, message: Vec<u8>) -> Result<(), NotSent> {
        let needed = self.room.needed(&message);
        let place = Arc::clone(&self.room.places).acquire_many_owned(needed).await.map_err(|_| NotSent)?;
        self.messages.send(Waiting { message, _place: place }).await.map_err(|_| NotSent)
    }
}

impl Receiver {
    /// Takes out the next message; nothing once nobody puts any in.
    pub async fn recv(&mut self) -> Option<Vec<u8>> {
        self.0.recv().await.map(|waiting| waiting.message)
    }

    /// Takes out the next message if there is one.
    #[cfg(test)]
    pub fn try_recv(&mut self) -> Option<Vec<u8>> {
        self.0.try_recv().ok().map(|waiting| waiting.message)
    }

    /// Whether nobody puts in any more.
    #[cfg(test)]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_wait_in_number_and_bytes() {
        let (sender, mut receiver) = bounded(3, 10);
        sender.try_send(vec![0; 6]).expect("room");
        assert!(sender.try_send(vec![0; 5]).is_err());
        sender.try_send(vec![0; 4]).expect("room for a smaller one");
        assert_eq!(receiver.recv().await.map(|message| message.len()), Some(6));
        sender.try_send(vec![0; 1]).expect("room again");
        sender.try_send(vec![0; 1]).expect("room again");
        assert!(sender.try_send(Vec::new()).is_err(), "three wait");
        while receiver.try_recv().is_some() {}
        sender.send(vec![0; 100]).await.expect("alone, each has room");
        assert!(sender.try_send(vec![0; 1]).is_err());
        assert_eq!(receiver.recv().await.map(|message| message.len()), Some(100));
        drop(sender);
        assert!(receiver.is_closed() && receiver.recv().await.is_none());
    }
}
