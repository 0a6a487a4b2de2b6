//! Handshake messages that arrive in pieces (RFC 6347 §4.2.3), made whole before `dimpl` sees them.
//!
//! `dimpl` takes pieces only as one sender cut them: pieces that overlap, as those of a retransmission that was cut elsewhere,
//! leave its handshake waiting for ever, more than eight records in a datagram are not read at all, and thirty datagrams that
//! lead nowhere end it. A ClientHello with post-quantum keys is larger than a datagram, so pieces are everyday.
//!
//! Owns the pieces of messages in the clear, in bounded memory whatever they announce. Driven by the DTLS session until
//! there are keys. Never looks into a message, and leaves alone what is encrypted.

use std::ops::Range;

/// RFC 6347 §4.1 and §4.2.2.
const RECORD_HEADER: usize = 13;
const MESSAGE_HEADER: usize = 12;
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
/// RFC 9147 §4: records of DTLS 1.3 that are encrypted, whose header is another.
const UNIFIED_HEADERS: std::ops::RangeInclusive<u8> = 0x20..=0x3f;

/// With its header a message must fit into one record (RFC 6347 §4.1). A chain of certificates is some 5 KB; what announces
/// more is refused.
pub(super) const MAX_MESSAGE: usize = (1 << 14) - MESSAGE_HEADER;
/// Messages that one side of a handshake has: eight at most, of a server that asks for a cookie. Later ones are refused, so that
/// they do not fill `dimpl`'s queue of 30.
const MAX_SEQUENCE: u16 = 16;
/// Messages in pieces at a time: a flight has three that are worth cutting. For another one that of which least is there is
/// forgotten, so that a flood of beginnings costs nobody else's; its sender sends it again.
const MAX_PARTIAL: usize = 6;
/// Holes between the pieces of a message: pieces of 256 bytes in the worst order. A piece that would make more is not taken.
const MAX_HOLES: usize = 32;
/// Every repetition of a flight brings another ChangeCipherSpec; they are all alike, and the rest is not passed on.
const MAX_CHANGES: u8 = 8;

/// A record with the header of DTLS 1.2.
struct Record<'a> {
    header: &'a [u8; RECORD_HEADER],
    body: &'a [u8],
    /// With its header.
    bytes: &'a [u8],
}

/// A handshake message, or a piece of one.
struct Piece<'a> {
    kind: u8,
    /// Of the whole message, without its header.
    length: usize,
    sequence: u16,
    offset: usize,
    body: &'a [u8],
    /// With its header.
    bytes: &'a [u8],
}

impl Piece<'_> {
    fn is_whole(&self) -> bool {
        self.body.len() == self.length
    }

    fn is_plausible(&self) -> bool {
        self.offset + self.body.len() <= self.length
            && self.length <= MAX_MESSAGE
            && self.sequence < MAX_SEQUENCE
            && (self.is_whole() || !self.body.is_empty())
    }
}

/// A message of which something is missing. Pieces that disagree about its kind or length are of another one.
struct Partial {
    kind: u8,
    sequence: u16,
    body: Vec<u8>,
    holes: Vec<Range<usize>>,
}

impl Partial {
    fn new(piece: &Piece<'_>) -> Self {
        let all = 0..piece.length;
        Self {
            kind: piece.kind,
            sequence: piece.sequence,
            body: vec![0; piece.length],
            holes: vec![all],
        }
    }

    fn is_of(&self, piece: &Piece<'_>) -> bool {
        (self.kind, self.sequence, self.body.len()) == (piece.kind, piece.sequence, piece.length)
    }

    /// How many bytes are there.
    fn filled(&self) -> usize {
        self.body.len() - self.holes.iter().map(Range::len).sum::<usize>()
    }

    fn put(&mut self, piece: &Piece<'_>) {
        let filled = piece.offset..piece.offset + piece.body.len();
        let sides = |hole: &Range<usize>| {
            [
                hole.start..hole.end.min(filled.start),
                hole.start.max(filled.end)..hole.end,
            ]
        };
        let left: Vec<_> = self
            .holes
            .iter()
            .flat_map(sides)
            .filter(|hole| !hole.is_empty())
            .collect();
        if let (true, Some(place)) = (left.len() <= MAX_HOLES, self.body.get_mut(filled)) {
            place.copy_from_slice(piece.body);
            self.holes = left;
        }
    }

    /// With its header.
    fn bytes(&self) -> Vec<u8> {
        let [_, length @ ..] = u32::try_from(self.body.len()).unwrap_or_default().to_be_bytes();
        let sequence = self.sequence.to_be_bytes();
        [&[self.kind], &length[..], &sequence, &[0; 3], &length, &self.body].concat()
    }
}

#[derive(Default)]
pub(super) struct Fragments {
    partial: Vec<Partial>,
    changes: u8,
}

impl Fragments {
    /// Hands on a datagram as it is if nothing in it is to be made whole; otherwise each message and each other record as a
    /// datagram of its own: `dimpl` puts datagrams in order, not what is in them.
    pub(super) fn handle<E>(&mut self, datagram: &[u8], mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let (is_plain, changes) = survey(datagram);
        if is_plain && (changes == 0 || self.changes < MAX_CHANGES) {
            self.changes = self.changes.saturating_add(changes);
            return each(datagram);
        }
        let mut rest = datagram;
        while let Some((record, after)) = split_record(rest) {
            rest = after;
            match record.clear_kind() {
                Some(HANDSHAKE) => {
                    for piece in pieces(record.body).map_while(|piece| piece) {
                        if piece.is_plausible() {
                            self.handle_piece(record.header, &piece, &mut each)?;
                        }
                    }
                }
                Some(CHANGE_CIPHER_SPEC) if self.changes >= MAX_CHANGES => {}
                kind => {
                    self.changes += u8::from(kind == Some(CHANGE_CIPHER_SPEC));
                    each(record.bytes)?;
                }
            }
        }
        match rest.first() {
            Some(first) if UNIFIED_HEADERS.contains(first) => each(rest),
            _ => Ok(()),
        }
    }

    fn handle_piece<E>(
        &mut self,
        header: &[u8; RECORD_HEADER],
        piece: &Piece<'_>,
        each: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if piece.is_whole() {
            return each(&with_header(header, piece.bytes));
        }
        match self.complete(piece) {
            Some(whole) => each(&with_header(header, &whole.bytes())),
            None => Ok(()),
        }
    }

    /// The message, if this was its last piece.
    fn complete(&mut self, piece: &Piece<'_>) -> Option<Partial> {
        let known = self.partial.iter().position(|partial| partial.is_of(piece));
        let at = known.unwrap_or_else(|| {
            if self.partial.len() >= MAX_PARTIAL {
                let emptiest = (0..).zip(&self.partial).min_by_key(|(_, partial)| partial.filled());
                self.partial.remove(emptiest.map_or(0, |(at, _)| at));
            }
            self.partial.push(Partial::new(piece));
            self.partial.len() - 1
        });
        let partial = self.partial.get_mut(at)?;
        partial.put(piece);
        let is_done = partial.holes.is_empty();
        is_done.then(|| self.partial.remove(at))
    }
}

impl Record<'_> {
    /// None: of another epoch than the first, thus encrypted.
    fn clear_kind(&self) -> Option<u8> {
        match *self.header {
            [kind, _, _, 0, 0, ..] => Some(kind),
            _ => None,
        }
    }
}

/// Whether all of it can be read as it is, as nearly always; and how many ChangeCipherSpecs are in it.
fn survey(datagram: &[u8]) -> (bool, u8) {
    let mut rest = datagram;
    let mut changes = 0u8;
    while let Some((record, after)) = split_record(rest) {
        rest = after;
        match record.clear_kind() {
            Some(HANDSHAKE) => {
                let is_good =
                    |piece: Option<Piece<'_>>| piece.is_some_and(|piece| piece.is_whole() && piece.is_plausible());
                if record.body.is_empty() || !pieces(record.body).all(is_good) {
                    return (false, changes);
                }
            }
            Some(CHANGE_CIPHER_SPEC) => changes = changes.saturating_add(1),
            _ => {}
        }
    }
    // Nothing is left, or what is not for us to judge.
    (true, changes)
}

/// The next record, and what is behind it. None: there is none, it is cut off, or an encrypted one of DTLS 1.3 begins.
fn split_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<RECORD_HEADER>()?;
    let [kind, .., high, low] = *header;
    if UNIFIED_HEADERS.contains(&kind) {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    let body = rest.get(..length)?;
    let (bytes, rest) = bytes.split_at_checked(RECORD_HEADER + length)?;
    Some((Record { header, body, bytes }, rest))
}

/// The messages of a record; ends with None where they make no sense.
fn pieces(mut rest: &[u8]) -> impl Iterator<Item = Option<Piece<'_>>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let piece = split_piece(rest);
        rest = match &piece {
            Some(piece) => rest.get(piece.bytes.len()..).unwrap_or_default(),
            None => &[],
        };
        Some(piece)
    })
}

fn split_piece(bytes: &[u8]) -> Option<Piece<'_>> {
    let (header, rest) = bytes.split_first_chunk::<MESSAGE_HEADER>()?;
    let [kind, a, b, c, high, low, d, e, f, g, h, i] = *header;
    let number = |bytes: [u8; 3]| bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
    let size = number([g, h, i]);
    Some(Piece {
        kind,
        length: number([a, b, c]),
        sequence: u16::from_be_bytes([high, low]),
        offset: number([d, e, f]),
        body: rest.get(..size)?,
        bytes: bytes.get(..MESSAGE_HEADER + size)?,
    })
}

/// A record with that header, but for its length.
fn with_header(header: &[u8; RECORD_HEADER], body: &[u8]) -> Vec<u8> {
    let (head, _) = header.split_at(RECORD_HEADER - 2);
    // At most what came in one record, or `MAX_MESSAGE` with its header.
    let length = u16::try_from(body.len()).unwrap_or_default();
    [head, &length.to_be_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u8, epoch: u8, body: &[u8]) -> Vec<u8> {
        let mut record = vec![kind, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 7];
        record.extend((body.len() as u16).to_be_bytes());
        record.extend(body);
        record
    }

    fn piece(sequence: u16, length: usize, offset: usize, body: &[u8]) -> Vec<u8> {
        let number = |number: usize| [(number >> 16) as u8, (number >> 8) as u8, number as u8];
        let mut piece = vec![11];
        piece.extend(number(length));
        piece.extend(sequence.to_be_bytes());
        piece.extend(number(offset));
        piece.extend(number(body.len()));
        piece.extend(body);
        piece
    }

    fn given(fragments: &mut Fragments, datagram: &[u8]) -> Vec<Vec<u8>> {
        let mut given = Vec::new();
        let each = |datagram: &[u8]| {
            given.push(datagram.to_vec());
            Ok::<(), ()>(())
        };
        fragments.handle(datagram, each).expect("no error");
        given
    }

    #[test]
    fn whole_messages_and_what_is_encrypted_pass_as_they_are() {
        let mut fragments = Fragments::default();
        let whole = record(22, 0, &[piece(0, 3, 0, b"abc"), piece(1, 0, 0, b"")].concat());
        let ciphertext = record(22, 1, &[0xff; 40]);
        let unified = [0x2f; 60].to_vec();
        for datagram in [
            whole.clone(),
            ciphertext.clone(),
            unified.clone(),
            [&whole[..], &ciphertext, &whole].concat(),
            [&whole[..], &unified].concat(),
            record(20, 0, &[1]),
            record(23, 1, &[]),
            vec![],
        ] {
            assert_eq!(given(&mut fragments, &datagram), [datagram]);
        }
    }

    #[test]
    fn pieces_are_taken_out_of_their_datagram() {
        let mut fragments = Fragments::default();
        let finished = record(22, 1, &[9; 40]);
        let datagram = [
            record(22, 0, &[piece(1, 6, 3, b"def"), piece(2, 2, 0, b"xy")].concat()),
            record(20, 0, &[1]),
            finished.clone(),
        ];
        let rest = [record(22, 0, &piece(2, 2, 0, b"xy")), record(20, 0, &[1]), finished];
        assert_eq!(given(&mut fragments, &datagram.concat()), rest);
        let last = record(22, 0, &piece(1, 6, 0, b"abcd"));
        assert_eq!(
            given(&mut fragments, &last),
            [record(22, 0, &piece(1, 6, 0, b"abcdef"))]
        );
        assert!(fragments.partial.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_not_passed_on() {
        let mut fragments = Fragments::default();
        let good = piece(3, 1, 0, b"a");
        for bad in [
            piece(0, 1 << 23, 0, &[1; 100]),
            piece(0, MAX_MESSAGE + 1, 0, &[1; 100]),
            piece(0, 100, 90, &[1; 20]),
            piece(0, 100, 200, &[1; 20]),
            piece(0, 10, 0, &[1; 20]),
            piece(0, 10, 5, &[]),
            piece(MAX_SEQUENCE, 3, 0, b"abc"),
            piece(u16::MAX, 300, 0, b"abc"),
        ] {
            let datagram = record(22, 0, &[good.clone(), bad, good.clone()].concat());
            assert_eq!(
                given(&mut fragments, &datagram),
                [record(22, 0, &good), record(22, 0, &good)]
            );
        }
        // Longer than its record: what follows cannot be told.
        let mut long = piece(0, 100, 0, &[1; 20]);
        long[11] = 200;
        let datagram = record(22, 0, &[good.clone(), long, good.clone()].concat());
        assert_eq!(given(&mut fragments, &datagram), [record(22, 0, &good)]);
        for bad in [record(22, 0, &[]), record(22, 0, &[1; 11]), record(22, 0, &[0xff; 40])] {
            assert_eq!(given(&mut fragments, &bad), Vec::<Vec<u8>>::new());
        }
        assert!(fragments.partial.is_empty());
    }

    /// Endless first pieces, every second byte, endless ChangeCipherSpecs: nothing grows, and a message still arrives.
    #[test]
    fn a_flood_is_bounded() {
        let mut fragments = Fragments::default();
        let held = |fragments: &Fragments| -> usize {
            let one =
                |partial: &Partial| partial.body.capacity() + partial.holes.capacity() * size_of::<Range<usize>>();
            fragments.partial.iter().map(one).sum()
        };
        let mut changes = 0;
        for number in 0..5000usize {
            let sequence = (number % 20) as u16;
            let first = record(22, 0, &piece(sequence, MAX_MESSAGE - number, 0, b"abc"));
            assert!(given(&mut fragments, &first).is_empty());
            let scattered = record(22, 0, &piece(0, MAX_MESSAGE, number * 2, b"a"));
            assert!(given(&mut fragments, &scattered).is_empty());
            changes += given(&mut fragments, &record(20, 0, &[1])).len();
            assert!(held(&fragments) < 112 * 1024, "{} bytes", held(&fragments));
        }
        assert_eq!(changes, usize::from(MAX_CHANGES));
        let message: Vec<u8> = (0..3000u32).map(|byte| byte as u8).collect();
        let mut all = Vec::new();
        for (at, part) in message.chunks(1000).enumerate() {
            all.append(&mut given(
                &mut fragments,
                &record(22, 0, &piece(1, 3000, at * 1000, part)),
            ));
        }
        assert_eq!(all, [record(22, 0, &piece(1, 3000, 0, &message))]);
    }

    proptest! {
        /// Cut anywhere, any number of times, in any order: what comes out is what went in.
        #[test]
        fn any_cut_in_any_order(length in 1usize..4000, cuts in proptest::collection::vec((any::<u16>(), 1usize..900), 0..24)) {
            let message: Vec<u8> = (0..length).map(|byte| (byte * 7) as u8).collect();
            let mut fragments = Fragments::default();
            let mut all = Vec::new();
            let rest = (0..length).step_by(500).map(|at| (at, 500));
            let cuts = cuts.into_iter().map(|(at, size)| (usize::from(at) % length, size));
            for (at, size) in cuts.chain(rest) {
                let part = &message[at..length.min(at + size)];
                all.append(&mut given(&mut fragments, &record(22, 0, &piece(1, length, at, part))));
            }
            let whole = record(22, 0, &piece(1, length, 0, &message));
            prop_assert!(!all.is_empty() && all.iter().all(|given| *given == whole));
        }

        #[test]
        fn any_bytes(datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20)) {
            let mut fragments = Fragments::default();
            for body in datagrams {
                given(&mut fragments, &record(22, 0, &body));
                given(&mut fragments, &body);
            }
        }
    }
}
