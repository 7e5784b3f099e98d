//! Huffman codes and the numbers that follow them.
//!
//! Source: ITU-T T.81, annexes C and F.2.2.

/// Codes of at most this many bits are found by one look into a table.
const LOOKUP_BITS: u32 = 10;
/// What the symbol "end of block" at least adds to the position in a block: more than any run.
pub(super) const END_OF_BLOCK: usize = 128;
/// What a code that is not wanted adds to the position in a block: beyond its end, before an end of block.
const UNWANTED: u32 = 64;

/// A code in one number, so that one load tells all.
#[derive(Clone, Copy, Default)]
pub(super) struct Code(u32);

impl Code {
    fn new(symbol: u8, code_len: u32, kind: Kind, max_size: u32) -> Code {
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        let skip = match (kind, run, size) {
            (Kind::Dc, ..) => 0,
            (Kind::Ac, ..) if size > max_size => UNWANTED,
            // 16 zeros: 15 are skipped, and one is written.
            (Kind::Ac, 15, 0) => 15,
            // Progressive scans end several blocks at once.
            (Kind::Ac, run, 0) => END_OF_BLOCK as u32 + run,
            (Kind::Ac, ..) => run,
        };
        Code((code_len + size) | (code_len << 8) | (size << 16) | (skip << 24))
    }

    /// Bits of the code and the number after it, at most 27; 0 if there is no such code.
    #[inline(always)]
    pub(super) fn bits(self) -> u32 {
        // At most 6 bits, because shifts by such a number need no masking of their own.
        self.0 & 63
    }

    /// Bits of the code alone.
    #[inline(always)]
    pub(super) fn code_len(self) -> u32 {
        (self.0 >> 8) & 63
    }

    /// Bits of the number after the code.
    #[inline(always)]
    pub(super) fn size(self) -> u32 {
        (self.0 >> 16) & 63
    }

    /// Coefficients of 0 before the one of this code; from [`END_OF_BLOCK`] on, an end of block; more than
    /// a block has, a code that is not wanted.
    #[inline(always)]
    pub(super) fn skip(self) -> usize {
        (self.0 >> 24) as usize
    }

    /// The number after the code, given the bits from the code on; 0 if none follows.
    #[inline(always)]
    pub(super) fn value(self, bits: u64) -> i32 {
        let (code_len, size) = (self.code_len(), self.size());
        let bits = bits << code_len;
        let magnitude = (bits >> 1 >> (63 - size)) as i32;
        // Numbers that begin with a 0 are negative.
        let is_negative = !(bits as i64 >> 63) as i32;
        magnitude - (is_negative & ((1 << size) - 1))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dc,
    Ac,
}

impl Kind {
    /// The most bits that a number has in images of 8 bits.
    pub(super) fn max_size(self) -> u32 {
        match self {
            Kind::Dc => 11,
            Kind::Ac => 10,
        }
    }
}

/// A Huffman table, ready for use.
pub(super) struct Table {
    kind: Kind,
    /// The definition that this was built from: most files share a few.
    definition: Vec<u8>,
    /// The most bits that a number of the table may have.
    max_size: u32,
    lookup: Box<[Code; 1 << LOOKUP_BITS]>,
    /// For each length, the first 16 bits of the first longer code.
    limits: [u32; 17],
    /// For each length, the place of its first symbol, less its first code.
    offsets: [i32; 17],
}

impl Table {
    pub(super) fn new(kind: Kind) -> Table {
        Table {
            kind,
            definition: Vec::new(),
            max_size: kind.max_size(),
            lookup: Box::new([Code::default(); 1 << LOOKUP_BITS]),
            limits: [0; 17],
            offsets: [0; 17],
        }
    }

    /// Becomes the table of `definition`, 16 counts and the symbols; `None` if it is none.
    ///
    /// A block in which a coefficient other than the first has more than `max_size` bits cannot be read
    /// with it.
    pub(super) fn define(&mut self, definition: &[u8], max_size: u32) -> Option<()> {
        if self.definition == definition && self.max_size == max_size {
            return Some(());
        }
        // If this fails half-way, the next definition must not take it for done.
        self.definition.clear();
        self.max_size = max_size;
        self.lookup.fill(Code::default());
        let (counts, symbols) = definition.split_at_checked(16)?;
        if symbols.iter().any(|&symbol| {
            u32::from(symbol & 15) > self.kind.max_size()
                || self.kind == Kind::Dc && symbol >> 4 != 0
        }) {
            return None;
        }
        let (mut code, mut place) = (0_u32, 0_usize);
        for (len, &count) in (1_u32..).zip(counts) {
            self.offsets[len as usize] = place as i32 - code as i32;
            for &symbol in symbols.get(place..place + usize::from(count))? {
                if code >= 1 << len {
                    return None;
                }
                if len <= LOOKUP_BITS {
                    let shift = LOOKUP_BITS - len;
                    let first = (code << shift) as usize;
                    self.lookup[first..first + (1 << shift)]
                        .fill(Code::new(symbol, len, self.kind, max_size));
                }
                code += 1;
            }
            place += usize::from(count);
            self.limits[len as usize] = code << (16 - len);
            code <<= 1;
        }
        self.definition.extend_from_slice(definition);
        Some(())
    }

    /// Whether a long run of zeros may be of empty blocks.
    pub(super) fn ends_blocks_by_zeros(&self) -> bool {
        self.code(0)
            .is_some_and(|code| code.size() == 0 && code.skip() >= END_OF_BLOCK)
    }

    /// The code that `bits` begin with; `None` if there is none.
    #[inline(always)]
    pub(super) fn code(&self, bits: u64) -> Option<Code> {
        let code = self.lookup[(bits >> (64 - LOOKUP_BITS)) as usize];
        if code.0 != 0 {
            return Some(code);
        }
        self.long_code(bits)
    }

    #[cold]
    fn long_code(&self, bits: u64) -> Option<Code> {
        let next = (bits >> 48) as u32;
        let len = (LOOKUP_BITS + 1..=16).find(|&len| next < self.limits[len as usize])?;
        let place = self.offsets[len as usize] + (next >> (16 - len)) as i32;
        let symbol = *self.definition.get(16 + usize::try_from(place).ok()?)?;
        Some(Code::new(symbol, len, self.kind, self.max_size))
    }
}
