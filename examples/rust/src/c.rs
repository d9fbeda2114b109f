//! What `../c` gives: files of a bundle, JSON and token ids. Its errors end the program with one line.

use std::ffi::{c_char, c_uint, CString};
use std::{slice, str};

/// Bytes that live as long as the program.
#[repr(C)]
#[derive(Clone, Copy)]
struct Bytes {
    data: *const u8,
    size: usize,
}

impl Bytes {
    fn of(text: &str) -> Self {
        Self { data: text.as_ptr(), size: text.len() }
    }

    fn content(self) -> &'static [u8] {
        if self.size == 0 {
            return &[];
        }
        // SAFETY: what this is called for is a mapped file or JSON in memory, and never freed.
        unsafe { slice::from_raw_parts(self.data, self.size) }
    }
}

#[repr(C)]
struct Numbers {
    at: *mut u32,
    count: usize,
    room: usize,
}

/// A value of JSON: the C header's struct.
#[repr(C)]
pub struct Json {
    kind: c_uint,
    name: Bytes,
    text: Bytes,
    number: f64,
    first: *const Json,
    next: *const Json,
    count: usize,
}

#[repr(C)]
struct Opened {
    path: *const c_char,
    is_folder: bool,
    archive: Bytes,
}

#[repr(C)]
struct OpaqueTokenizer {
    _private: [u8; 0],
}

extern "C" {
    fn bundle_open(path: *const c_char) -> Opened;
    fn bundle_read(bundle: *const Opened, name: Bytes) -> Bytes;
    fn json_parse(data: Bytes, what: *const c_char) -> *const Json;
    fn tokenizer_open(data: *const Json) -> *mut OpaqueTokenizer;
    fn tokenizer_encode(tokenizer: *const OpaqueTokenizer, text: Bytes, ids: *mut Numbers);
    fn tokenizer_before(tokenizer: *const OpaqueTokenizer) -> *const Numbers;
    fn tokenizer_after(tokenizer: *const OpaqueTokenizer) -> *const Numbers;
    fn set_line(number: usize);
    fn free(block: *mut u32);
}

/// The line of the input that the C part's errors name; 0 for none.
pub fn name_line(number: usize) {
    // SAFETY: it sets a number.
    unsafe { set_line(number) }
}

const BOOL: c_uint = 1;
const NUMBER: c_uint = 2;
const STRING: c_uint = 3;

impl Json {
    pub fn members(&self) -> impl Iterator<Item = &'static Json> {
        // SAFETY: JSON is never freed; its pointers are null or of values in it.
        let mut at = unsafe { self.first.as_ref() };
        std::iter::from_fn(move || {
            let found = at?;
            at = unsafe { found.next.as_ref() };
            Some(found)
        })
    }

    pub fn get(&self, name: &str) -> Option<&'static Json> {
        self.members().find(|member| member.name() == name)
    }

    pub fn name(&self) -> &'static str {
        str::from_utf8(self.name.content()).unwrap_or_default()
    }

    pub fn text(&self) -> Option<&'static str> {
        if self.kind != STRING {
            return None;
        }
        str::from_utf8(self.text.content()).ok()
    }

    pub fn whole(&self) -> Option<usize> {
        (self.kind == NUMBER && self.number >= 0.0).then_some(self.number as usize)
    }

    pub fn is_true(&self) -> bool {
        self.kind == BOOL && self.number != 0.0
    }
}

/// A bundle's folder, or a package's file.
pub struct Bundle {
    opened: Opened,
    path: CString,
}

impl Bundle {
    pub fn open(path: &str) -> Result<Self, String> {
        let path = CString::new(path).map_err(|_| "the path has a NUL in it")?;
        // SAFETY: the path lives as long as what keeps its pointer: a CString's bytes do not move.
        let opened = unsafe { bundle_open(path.as_ptr()) };
        Ok(Self { opened, path })
    }

    /// Where a file of a folder is; None in a package.
    pub fn path_of(&self, name: &str) -> Option<CString> {
        let folder = self.opened.is_folder.then(|| self.path.to_str().ok())??;
        CString::new(format!("{folder}/{name}")).ok()
    }

    /// A file's content, mapped into memory.
    pub fn read(&self, name: &str) -> &'static [u8] {
        // SAFETY: the name is read while the call lasts.
        unsafe { bundle_read(&self.opened, Bytes::of(name)) }.content()
    }

    pub fn json(&self, name: &str) -> &'static Json {
        let data = self.read(name);
        let what = CString::new(name).expect("names here have no NUL");
        // SAFETY: the result lives as long as the program; the file's name is for messages.
        unsafe { &*json_parse(Bytes { data: data.as_ptr(), size: data.len() }, what.into_raw()) }
    }
}

/// Texts to token ids, as `tokenizer.json` says.
pub struct Tokenizer(*mut OpaqueTokenizer);

impl Tokenizer {
    pub fn open(data: &'static Json) -> Self {
        // SAFETY: JSON lives as long as the program.
        Self(unsafe { tokenizer_open(data) })
    }

    /// The ids of a text, without those around every text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Numbers { at: std::ptr::null_mut(), count: 0, room: 0 };
        // SAFETY: a str is valid UTF-8, as the C part asks; the numbers are ours to free.
        unsafe {
            tokenizer_encode(self.0, Bytes::of(text), &mut ids);
            let found = copied(&ids);
            free(ids.at);
            found
        }
    }

    /// The ids before and after every text: [CLS] and [SEP].
    pub fn around(&self) -> (Vec<u32>, Vec<u32>) {
        // SAFETY: the tokenizer keeps them.
        unsafe { (copied(&*tokenizer_before(self.0)), copied(&*tokenizer_after(self.0))) }
    }
}

/// # Safety
/// The numbers are those of the C part, which are null or as many as it says.
unsafe fn copied(numbers: &Numbers) -> Vec<u32> {
    if numbers.count == 0 {
        return Vec::new();
    }
    slice::from_raw_parts(numbers.at, numbers.count).to_vec()
}
