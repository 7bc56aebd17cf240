"""What can go wrong on a device, sorted by what is to be done about it.

ScoutAgentError
├── Misconfigured        a person must change the config; the agent exits and touches nothing
│   ├── ConfigMissing    there is no config yet: this machine is not enrolled
│   └── ConfigForbidden  this user may not read the config
├── LocalFault           disk full, locked, read-only: data stays where it is, try again later
│   ├── SpoolFull        a limit of the spool or of the disk is reached: intake is refused, nothing is dropped
│   ├── SpoolMissing     there is no spool here
│   ├── SpoolForbidden   this user may not read the spool
│   ├── SpoolBusy        another process holds the spool's lock: look again later
│   ├── SpoolOutdated    an older agent wrote the spool: a restart brings it up to date
│   └── SpoolDamaged     the spool's own file does not hold what it promised
├── SpoolMalformed       the database itself is proved damaged: it is moved aside and what can be read is salvaged
├── SpoolRefused         this spool is not ours to open: another device's, or a newer agent's
└── DeliveryFault        one try to deliver did not succeed
    ├── Wait             network or server trouble: try again, later each time, for ever
    │   └── ClockWrong   no secure connection, and this device's clock is not to be believed: wait, and say so
    ├── CredentialsRefused   the token is missing, expired or refused: pause, keep the data
    ├── BatchRefused     this batch was refused for itself: set it aside after some tries, go on with the next
    └── OperatorNeeded   the address, the bucket or the answer is wrong: keep trying, seldom, and say so

A class's docstring serves as its message when none is given.
"""


class ScoutAgentError(Exception):
    """The agent met a problem."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").partition("\n")[0])


class Misconfigured(ScoutAgentError):
    """The configuration can't be used."""


class ConfigMissing(Misconfigured):
    """There is no configuration."""


class ConfigForbidden(Misconfigured):
    """This user may not read the configuration."""


class LocalFault(ScoutAgentError):
    """This machine can't take the data now."""


class SpoolFull(LocalFault):
    """There is no room for more sales."""


class SpoolMissing(LocalFault):
    """There is no spool here."""


class SpoolForbidden(LocalFault):
    """This user may not read the spool."""


class SpoolBusy(LocalFault):
    """Another process holds the spool's lock."""


class SpoolOutdated(LocalFault):
    """An older agent wrote this spool; the next start brings it up to date."""


class SpoolDamaged(LocalFault):
    """The spool does not hold what it promised."""


class SpoolMalformed(ScoutAgentError):
    """The spool's database is damaged. Start the agent: it moves the file aside and salvages what can be read."""


class SpoolRefused(ScoutAgentError):
    """This spool can't be opened by this agent."""


class DeliveryFault(ScoutAgentError):
    """A delivery did not succeed."""

    kind = "fault"
    next_step = "wait"


class Wait(DeliveryFault):
    """The server can't be reached or is busy."""

    kind = "wait"
    next_step = "nothing: the agent keeps trying by itself"

    def __init__(
        self, message: str | None = None, retry_after_s: float | None = None, *, answered: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.answered = answered  # by a server, so that the batch itself may be what troubles it


class ClockWrong(Wait):
    """No secure connection while this device's clock is wrong."""

    kind = "clock"
    next_step = "let this device reach a time server, or set its clock (timedatectl); the agent then goes on by itself"


class CredentialsRefused(DeliveryFault):
    """The token is missing, expired or refused."""

    kind = "credentials"
    next_step = "ask the back office for a code, then: sudo scout-agent enrol --code CODE"


class BatchRefused(DeliveryFault):
    """The server refuses this batch."""

    kind = "refused"
    next_step = "tell the back office: the batch is kept and tried again daily"


class OperatorNeeded(DeliveryFault):
    """The server's answer is not what this address should give."""

    kind = "operator"
    next_step = "check the addresses under [server] in the config, and whether this network asks for a login"
