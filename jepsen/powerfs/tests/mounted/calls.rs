//! Every call that a broker makes works.
