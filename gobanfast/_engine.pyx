"""EngineCore: the calls of the hot path, and the swap of one ruleset for another."""

from libc.stdint cimport uint32_t

from gobanfast._address cimport gbf_ascii, leaves_many
from gobanfast._decision cimport Decision, decide_record
from gobanfast._rules cimport CompiledRules
from gobanfast._tls cimport ClientHello
from gobanfast.native cimport GBF_NONE, gbf_rules_record


cdef inline Decision answer(CompiledRules compiled, str address, str sni, ClientHello hello):
    cdef const char *text
    cdef size_t n
    cdef uint32_t record = GBF_NONE
    if address is not None and gbf_ascii(address, &text, &n):
        record = gbf_rules_record(&compiled._rules, text, n)
    return decide_record(compiled, record, address, sni, hello)


cdef int observe(object candidate, str address, str sni, ClientHello hello) except -1:
    if candidate is not None:  # another thread may have ended the trial since the caller looked
        candidate.observe(address, sni=sni, hello=hello)
    return 0


cdef class EngineCore:
    """The hot half of `gobanfast.Engine`: one reference to compiled rules, and the calls that read it."""

    def __init__(self, CompiledRules compiled not None):
        self.compiled = compiled
        self.generation = 1

    def _swap(self, CompiledRules compiled not None):
        self.compiled = compiled
        self.generation += 1

    def decide(self, str address, /, *, str sni=None, ClientHello hello=None):
        """Decision about a client address; None means the address is not known.

        Args:
            sni: the server name the client asked for; None means absent, unless `hello` has one.
            hello: the ClientHello, from `parse_client_hello`; gives the name, JA4, protocols, version and ECH.
        What cannot be read is no error. When no rule decides and a signal that some rule asks for cannot be read (an
        address text that is none counts whatever rules ask), the ruleset's `unparsable` policy does: reason
        "malformed-address", else "malformed-hello" (any status but "ok"), else "malformed-sni".
        Cost: two to five cache lines and one small object, a line or two for each pattern that covers the name, and
        what `hello.ja4` costs if a rule asks for it. `re:` patterns run in RE2. Any number of threads.
        """
        if self.candidate is not None:
            observe(self.candidate, address, sni, hello)
        return answer(self.compiled, address, sni, hello)

    def peek(self, str address, /, *, str sni=None, ClientHello hello=None):
        """What `decide` would answer, without touching live state. (No live state exists yet: the two agree.)"""
        return answer(self.compiled, address, sni, hello)

    def records(self, addresses, out, /, *, bint others_absent=False):
        """Record index of each address into `out`; `decision(index)` says what a record means.

        Args:
            others_absent: True takes every signal besides the address as absent, for data that holds no other.
            addresses: uint32 buffer (IPv4, host order), n x 16 bytes (network order), or a list of str.
            out: writable buffer of n uint32; 0xFFFFFFFF where a text is not an address.
        Raises:
            ValueError: buffers that do not fit; or rules that ask for other signals, which the message names.
        Cost: 2 to 20 ns an address; rows with one record share one decision, so count records, then ask.
        """
        cdef CompiledRules compiled = self.compiled
        if compiled.signals is not None and not others_absent:
            raise ValueError(f"rules {', '.join(compiled.beyond_address)} ask for more than the address; "
                             "others_absent=True takes other signals as absent")
        leaves_many(&compiled._rules.lpm, compiled._rules.kernel, addresses, out)

    def decision(self, uint32_t record, /):
        """The decision that every address of this record gets (0xFFFFFFFF: a text that is not an address), other
        signals absent."""
        cdef CompiledRules compiled = self.compiled
        if record != GBF_NONE and record >= compiled._rules.record_count:
            raise ValueError(f"record {record} does not exist; there are {compiled._rules.record_count}")
        return decide_record(compiled, record, None if record != GBF_NONE else "", None, None)
