//! Frames on their way into and out of one record (docs/protocol.md §4).
//!
//! ```text
//! frame, frame, ... ──> Batch ── seal ──> one WebSocket message ── open ──> Frames ──> frame, frame, ...
//! ```

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use crate::codec::{DecodeError, Reader};
use crate::error::{LinkError, Malformed, Misbehaviour, Misuse, Part};
use crate::frame::{Direction, Frame, READY};
use crate::limits::{MAX_RECORD_FRAMES, MAX_RECORD_PLAINTEXT_BYTES};
use crate::record::RECORD_TYPE;

/// Frames to be sealed together in one record. They are encoded into the buffer that is later sealed in place and sent.
pub struct Batch<D> {
    /// The record's type byte, then the frames.
    record: Vec<u8>,
    frames: usize,
    direction: PhantomData<fn(D)>,
}

impl<D: Direction> Batch<D> {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            record: vec![RECORD_TYPE],
            frames: 0,
            direction: PhantomData,
        }
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// [`Misuse::BatchFull`] if a record does not hold one more, and [`Misuse::Encode`] if a field is out of its bounds. The
    /// batch is then as it was.
    pub fn push(&mut self, frame: &D::Frame<'_>) -> Result<(), Misuse> {
        if frame.type_byte() == READY && self.frames != 0 {
            return Err(Misuse::ReadyOutOfPlace);
        }
        // docs/protocol.md §4: at most 256 frames, at most 3 MiB + 4 bytes
        if self.frames >= MAX_RECORD_FRAMES {
            return Err(Misuse::BatchFull);
        }
        let before = self.record.len();
        frame.encode(&mut self.record)?;
        if self.bytes() > MAX_RECORD_PLAINTEXT_BYTES {
            self.record.truncate(before);
            return Err(Misuse::BatchFull);
        }
        self.frames = self.frames.saturating_add(1);
        Ok(())
    }

    /// The number of frames.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.frames
    }

    /// Whether there is no frame yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Bytes of plaintext so far.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.record.len().saturating_sub(1)
    }

    pub(crate) fn begins_with_ready(&self) -> bool {
        self.record.get(1) == Some(&READY)
    }

    pub(crate) fn into_record(self) -> Vec<u8> {
        self.record
    }
}

impl<D: Direction> Default for Batch<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D> fmt::Debug for Batch<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

/// The frames of an opened record. All of them have been checked before the first is seen, so a record with anything malformed
/// in it has no effect at all.
pub struct Frames<'m, D> {
    rest: Reader<'m>,
    left: usize,
    direction: PhantomData<fn() -> D>,
}

impl<'m, D: Direction> Frames<'m, D> {
    /// Checks a record's plaintext: one to 256 frames and nothing else (docs/protocol.md §4, §5).
    pub(crate) fn check(plaintext: &'m [u8]) -> Result<Self, LinkError> {
        let mut reader = Reader::new(plaintext);
        let mut count = 0_usize;
        while !reader.is_empty() {
            if count >= MAX_RECORD_FRAMES {
                return Err(Misbehaviour::TooManyFrames.into());
            }
            D::Frame::decode(&mut reader).map_err(|defect: DecodeError| Malformed::Encoding {
                part: Part::Frame,
                defect,
            })?;
            count = count.saturating_add(1);
        }
        if count == 0 {
            return Err(Malformed::EmptyRecord.into());
        }
        Ok(Self {
            rest: Reader::new(plaintext),
            left: count,
            direction: PhantomData,
        })
    }
}

impl<'m, D: Direction> Iterator for Frames<'m, D> {
    type Item = D::Frame<'m>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        D::Frame::decode(&mut self.rest).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<D: Direction> ExactSizeIterator for Frames<'_, D> {}

impl<D> Clone for Frames<'_, D> {
    fn clone(&self) -> Self {
        Self {
            rest: self.rest.clone(),
            left: self.left,
            direction: PhantomData,
        }
    }
}

impl<D> fmt::Debug for Frames<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::EncodeError;
    use crate::frame::{
        Blob, Call, DeviceToRelay, List, Part as SendPart, Push, RelayToDevice, Send, ToDevice,
        ToRelay, Undelivered, UndeliveredReason, Upload,
    };
    use crate::key::Thumbprint;
    use alloc::format;

    /// A Send of the largest size: 16 messages of 98,304 bytes and 15 copies.
    fn largest_send(
        parts: &[SendPart<'_>],
        copies: &[SendPart<'_>],
        batch: &mut Batch<DeviceToRelay>,
    ) -> Result<(), Misuse> {
        batch.push(&ToRelay::Send(Send {
            request: 1,
            sequence: 1,
            id: [0; 16],
            user: "bob",
            whole: true,
            parts: parts.into(),
            copies: copies.into(),
        }))
    }

    /// docs/protocol.md §4: at most 3 MiB + 4 bytes together
    #[test]
    fn a_frame_that_does_not_fit_leaves_the_batch_as_it_was() {
        let message = vec![7; 98_304];
        let parts = vec![
            SendPart {
                device: Thumbprint::from_bytes([1; 32]),
                message: &message
            };
            16
        ];
        let mut batch = Batch::new();
        largest_send(&parts, &parts[..15], &mut batch).unwrap();
        let before = (batch.len(), batch.bytes());
        assert_eq!(
            largest_send(&parts[..1], &[], &mut batch),
            Err(Misuse::BatchFull)
        );
        assert_eq!((batch.len(), batch.bytes()), before);
        batch.push(&ToRelay::Ack { position: 1 }).unwrap();
        assert!(batch.bytes() <= MAX_RECORD_PLAINTEXT_BYTES);
        assert_eq!(
            Frames::<DeviceToRelay>::check(&batch.into_record()[1..])
                .unwrap()
                .len(),
            2
        );
    }

    /// docs/protocol.md §5.1, §5.2: nothing is sent that the other side would refuse
    #[test]
    fn frames_out_of_bounds_cannot_be_put_in_a_batch() {
        let (length, count) = (
            EncodeError::LengthOutOfBounds,
            EncodeError::CountOutOfBounds,
        );
        let long = vec![0; 98_305];
        let part = SendPart {
            device: Thumbprint::from_bytes([1; 32]),
            message: b"m",
        };
        let fetch = |request, user| ToRelay::FetchCards {
            request,
            user,
            take: false,
        };
        let whole = |parts, copies| Send {
            request: 1,
            sequence: 1,
            id: [0; 16],
            user: "bob",
            whole: true,
            parts,
            copies,
        };
        let one = [part];
        let send = |parts| ToRelay::Send(whole(parts, List::empty()));
        let copied = |copies| ToRelay::Send(whole(one.as_slice().into(), copies));
        let upload = |request, data| {
            ToRelay::Upload(Upload {
                request,
                blob: [0; 32],
                size: 0,
                offset: 0,
                data,
            })
        };
        let download = |request, length| ToRelay::Download {
            request,
            blob: [0; 32],
            offset: 0,
            length,
        };
        let call = |request, service, payload| {
            ToRelay::Call(Call {
                request,
                reply: true,
                service,
                payload,
            })
        };
        let payload = vec![0; (1 << 20) + 1];
        let chunk = vec![0; 131_073];
        let too_many = [part; 17];
        let too_long = [SendPart {
            message: &long,
            ..part
        }];
        let empty = [SendPart {
            message: b"",
            ..part
        }];
        let name = "a".repeat(256);
        let mut batch = Batch::<DeviceToRelay>::new();
        for (frame, error) in [
            (send(too_many.as_slice().into()), count),
            (send([].as_slice().into()), count),
            (send(too_long.as_slice().into()), length),
            (send(empty.as_slice().into()), length),
            (
                ToRelay::Send(Send {
                    sequence: 0,
                    ..whole(one.as_slice().into(), List::empty())
                }),
                EncodeError::ReservedValue,
            ),
            (copied(too_many[..16].into()), count),
            (copied(too_long.as_slice().into()), length),
            (copied(empty.as_slice().into()), length),
            (upload(0, b"data"), EncodeError::ReservedValue),
            (upload(1, &chunk), length),
            (download(0, 1), EncodeError::ReservedValue),
            (download(1, 0), length),
            (download(1, 131_073), length),
            (
                ToRelay::RemoveDevice {
                    request: 0,
                    device: part.device,
                },
                EncodeError::ReservedValue,
            ),
            (
                ToRelay::Discard {
                    request: 0,
                    blob: [0; 32],
                },
                EncodeError::ReservedValue,
            ),
            (call(0, "a.b", b""), EncodeError::ReservedValue),
            (call(1, "", b""), length),
            (call(1, &name, b""), length),
            (call(1, "a..b", b""), EncodeError::InvalidText),
            (call(1, "a", &payload), length),
            (fetch(0, "bob"), EncodeError::ReservedValue),
            (fetch(1, ""), length),
            (fetch(1, &name), length),
            (fetch(1, "a\u{85}"), EncodeError::InvalidText),
            (
                ToRelay::PublishCard {
                    request: 1,
                    card: b"",
                },
                length,
            ),
            (
                ToRelay::PublishCard {
                    request: 1,
                    card: &long[..16_385],
                },
                length,
            ),
            (
                ToRelay::PublishPrekeys {
                    request: 1,
                    replace: false,
                    prekeys: [].as_slice().into(),
                },
                count,
            ),
            (
                ToRelay::Refresh {
                    request: 1,
                    proof: b"",
                    token: b"",
                },
                length,
            ),
            (
                ToRelay::Refresh {
                    request: 1,
                    proof: &long[..2_049],
                    token: b"",
                },
                length,
            ),
            (
                ToRelay::Refresh {
                    request: 1,
                    proof: b"p",
                    token: &long[..8_193],
                },
                length,
            ),
        ] {
            assert_eq!(batch.push(&frame), Err(Misuse::Encode(error)));
            assert_eq!((batch.len(), batch.bytes()), (0, 0));
        }
        let mut batch = Batch::<RelayToDevice>::new();
        assert_eq!(
            batch.push(&ToDevice::Accepted { request: 0 }),
            Err(Misuse::Encode(EncodeError::ReservedValue))
        );
        let empty = ToDevice::Token {
            request: 0,
            expires: 1,
            token: b"",
        };
        assert_eq!(batch.push(&empty), Err(Misuse::Encode(length)));
        let blob = |request, data| {
            ToDevice::Blob(Blob {
                request,
                length: 0,
                size: 0,
                complete: false,
                data,
            })
        };
        assert_eq!(
            batch.push(&blob(0, b"")),
            Err(Misuse::Encode(EncodeError::ReservedValue))
        );
        assert_eq!(batch.push(&blob(1, &chunk)), Err(Misuse::Encode(length)));
        for (frame, error) in [
            (
                ToDevice::Result {
                    request: 0,
                    payload: b"",
                },
                EncodeError::ReservedValue,
            ),
            (
                ToDevice::Result {
                    request: 1,
                    payload: &payload,
                },
                length,
            ),
            (
                ToDevice::Push(Push {
                    service: "a b",
                    payload: b"",
                }),
                EncodeError::InvalidText,
            ),
            (
                ToDevice::Push(Push {
                    service: "a",
                    payload: &payload,
                }),
                length,
            ),
        ] {
            assert_eq!(batch.push(&frame), Err(Misuse::Encode(error)));
        }
        let undelivered = |user| {
            ToDevice::Undelivered(Undelivered {
                position: 1,
                id: [0; 16],
                user,
                device: part.device,
                reason: UndeliveredReason::Expired,
            })
        };
        assert_eq!(batch.push(&undelivered("")), Err(Misuse::Encode(length)));
        assert_eq!(
            batch.push(&undelivered("a\nb")),
            Err(Misuse::Encode(EncodeError::InvalidText))
        );
        assert!(batch.is_empty());
    }

    #[test]
    fn debug_shows_no_content() {
        let mut batch = Batch::<DeviceToRelay>::new();
        batch
            .push(&ToRelay::Refresh {
                request: 1,
                proof: b"proof",
                token: b"token",
            })
            .unwrap();
        assert_eq!(format!("{batch:?}"), "Batch { frames: 1, .. }");
    }
}
