//! What the page makes of data that means ill.
