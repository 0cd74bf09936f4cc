"""What a server must allow a user who works with a queue: the commands, the keys, and the line that grants them."""

from __future__ import annotations

from fairque.core.exceptions import ConfigError

CLIENT_COMMANDS = (
    "fcall", "function|load", "function|list", "blpop", "blmpop", "client|setname", "ping", "select", "wait", "info",
    "config|get",
)  # fmt: skip
"""What clients send: scripts, what they block on, their hello, and what `fairque doctor` looks at."""

SCRIPT_COMMANDS = (
    "del", "exists", "expire", "get", "getrange", "hdel", "hexists", "hget", "hgetall", "hincrby", "hkeys", "hlen",
    "hmget", "hrandfield", "hscan", "hset", "hsetnx", "hvals", "lindex", "linsert", "llen", "lpop", "lpos", "lpush",
    "lrange", "lrem", "lset", "ltrim", "mget", "mset", "persist", "pexpire", "pttl", "rename", "rpush", "sadd", "scan",
    "set", "setrange", "sismember", "smembers", "spop", "srandmember", "srem",
    "time", "type", "unlink", "zadd", "zcard", "zcount", "zpopmax",
    "zpopmin", "zrandmember", "zrange", "zrangebyscore", "zrank", "zrem", "zremrangebyrank", "zremrangebyscore",
    "zrevrange", "zrevrangebyscore", "zscore",
)  # fmt: skip
"""What scripts call, which the server checks against the rights of whoever calls the script."""

FSYNC_COMMANDS = ("waitaof",)
"""For `durability: fsync`, on servers that know it."""
ALL_COMMANDS = (*CLIENT_COMMANDS, *SCRIPT_COMMANDS)
OPTIONAL = frozenset({"function|list", "info", "config|get", "select", "wait"})
"""Without these a queue works, if it is not told to use them."""


def acl_rules(prefix: str = "fq", *, fsync: bool = False) -> str:
    """The rules of a user who may work with the queue under `prefix` and nothing else, for ACL SETUSER or a file."""
    commands = (*ALL_COMMANDS, *(FSYNC_COMMANDS if fsync else ()))
    return f"resetkeys ~{prefix}:* resetchannels -@all {' '.join(f'+{command}' for command in commands)}"


def acl_line(user: str = "fairque", prefix: str = "fq", *, fsync: bool = False) -> str:
    """What an administrator runs to make such a user; `<password>` is left to be filled in.

    Raises:
        ConfigError: the name holds spaces.
    """
    if not user or any(character.isspace() for character in user):
        raise ConfigError(f"the name of an ACL user holds no spaces, and is not empty: {user!r}")
    return f"ACL SETUSER {user} on ><password> {acl_rules(prefix, fsync=fsync)}"
