"""The embedded sample: synthetic one-minute futures bars from a seed, in the layout of ``databento.DBNStore.to_df()``.

The bars are invented, so they are no evidence about any market. They let every command run without data. The constants
were tuned by eye on real E-mini S&P bars with ``benchmarks/science/realism.py``. docs/explanation/sample.md
compares them.

The same seed gives the same bytes: one PCG64 stream is drawn in a fixed order, without BLAS. Rounding to ticks hides
last-bit differences between processors' exp(). Another version of numpy may draw other numbers.

Shapes: S sessions, M minutes of a session, K prints of a minute, C volatility terms, E surges of a session.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

TICK = 0.25
SESSION_BARS = 23 * 60  # 18:00 to 17:00 New York time, then an hour's break; exchange holidays are left out
FIRST_TRADE_DATE = np.datetime64("2023-01-03")  # its session opens on 2023-01-02 at 18:00
FIRST_PRICE = 4_000.0
TICKS_PER_LOG = FIRST_PRICE / TICK  # volatility is given in ticks at the first price, the price walks in logs
ROLL_BASIS = 0.009  # the next expiry costs more: three months of interest minus dividends
ROOT, MONTH_CODES = "SYN", "HMUZ"
FIRST_INSTRUMENT_ID = 900_001

VOLATILITY = 1.10  # ticks a minute where the profile is 1
PROFILE = {  # New York hour (over 24: after midnight): quiet Asia, London's open, the US open's peak, lunch, the close
    18.0: 0.90, 18.3: 0.60, 20.0: 0.52, 22.0: 0.36, 24.0: 0.33, 26.0: 0.45, 26.9: 0.55, 27.0: 0.90, 28.0: 0.75,
    30.0: 0.68, 31.5: 0.80, 32.5: 1.00, 33.45: 1.1, 33.5: 2.20, 34.2: 1.80, 35.5: 1.40, 36.5: 1.10, 37.5: 1.10,
    38.5: 1.40, 39.5: 1.70, 40.0: 2.10, 40.25: 0.9, 41.0: 0.50,
}  # fmt: skip

# Volatility clusters at every scale: AR(1) terms with different half-lives imitate its long memory.
LOG_VOL_HALF_LIVES = np.array([4.0, 30.0, 240.0])  # minutes
LOG_VOL_STDS = np.array([0.22, 0.16, 0.16])
DAY_HALF_LIFE, DAY_STD = 5.0, 0.20  # sessions
MINUTE_STD = 0.20

NEWS = {32.5: 0.35, 34.0: 0.25, 38.0: 0.10}  # New York hour of scheduled news -> share of sessions that have it
SURPRISES = 0.7  # unscheduled news per session
NEWS_JUMP = 1.2  # Laplace scale, in standard deviations of the minute
NEWS_KICK = np.array([0.6, 0.3, 0.0])  # added by news to the log volatility terms: restless minutes after the jump

SURGE_GAP = 130  # mean bars between one surge's aftermath and the next surge
SURGE_STRENGTH = (2.4, 4.2)  # net move, in standard deviations of a minute times the square root of its bars
AFTERMATH_BARS = 20
OUTCOMES = [0.75, 0.10, 0.15]  # pulled back, quiet, neither; with walks that stall by chance a third is quiet
QUIET = 0.55

PRINTS = 12  # prices per minute; with fewer a bar is all body, with more it is all wick
OPEN_STEP = 0.4  # the first print comes seconds after the last one of the minute before, so it moves little
FLICKER = (1.1, 0.25, 1.6)  # ticks of bid-ask bounce per tick of volatility, at least, at most
REVERSAL = 0.08  # share of a minute's move that the next minute takes back

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Days = NDArray[np.datetime64]


def generate_bars(num_bars: int = 200_000, seed: int = 1) -> pd.DataFrame:
    """Return ``num_bars`` one-minute bars of an invented index future that rolls every quarter.

    Units: prices in multiples of ``TICK``; the index ``ts_event`` is the bar's start in UTC.
    Raises: ValueError if ``num_bars`` is below 1.
    """
    if num_bars < 1:
        raise ValueError(f"num_bars is {num_bars}: at least 1 is needed")
    rng = np.random.Generator(np.random.PCG64(seed))
    num_sessions = -(-num_bars // SESSION_BARS)
    trade_date_S = np.busday_offset(np.repeat(FIRST_TRADE_DATE, num_sessions), np.arange(num_sessions))
    contract_S = _contracts(trade_date_S)

    jump_SM = _news(rng, num_sessions)
    sigma_SM = _volatility(rng, jump_SM != 0)
    drift_SM = _surges(rng, sigma_SM)
    ticks = _trade(rng, sigma_SM, drift_SM, jump_SM * sigma_SM, _between_sessions(rng, trade_date_S, contract_S))
    volume = _volume(rng, sigma_SM, ticks)

    prices = ticks[:num_bars] * TICK
    contract = np.repeat(contract_S, SESSION_BARS)[:num_bars]
    codes = [f"{ROOT}{MONTH_CODES[k % 4]}{(2023 + k // 4) % 10}" for k in range(contract_S[-1] + 1)]
    columns = {
        "rtype": np.full(num_bars, 33, dtype=np.uint8),
        "publisher_id": np.full(num_bars, 1, dtype=np.uint16),
        "instrument_id": (FIRST_INSTRUMENT_ID + contract).astype(np.uint32),
        "open": prices[:, 0],
        "high": prices[:, 1],
        "low": prices[:, 2],
        "close": prices[:, 3],
        "volume": volume[:num_bars],
        "symbol": pd.array(np.array(codes, dtype=object)[contract], dtype="str"),
    }
    return pd.DataFrame(columns, index=_times(trade_date_S)[:num_bars])


def _times(trade_date_S: Days) -> pd.DatetimeIndex:
    """Return the start of every minute in UTC. A session opens at 18:00 New York time on the evening before."""
    eve = pd.DatetimeIndex(trade_date_S - np.timedelta64(6, "h"))
    opens_ns = eve.tz_localize("America/New_York").tz_convert("UTC").as_unit("ns").asi8
    times = opens_ns[:, None] + np.arange(SESSION_BARS) * 60_000_000_000
    return pd.DatetimeIndex(times.ravel().view("datetime64[ns]"), tz="UTC", name="ts_event")


def _contracts(trade_date_S: Days) -> Ints:
    """Return the number of the front contract [S]. It changes on the Monday before the expiry month's third Friday."""
    months = np.arange("2023-03", trade_date_S[-1].astype("datetime64[M]") + 1, 3, dtype="datetime64[M]")
    expiry = np.busday_offset(months.astype("datetime64[D]"), 2, roll="forward", weekmask="Fri")
    return np.searchsorted(expiry - 4, trade_date_S, side="right").astype(np.int64)


def _news(rng: np.random.Generator, num_sessions: int) -> Floats:
    """Return jumps [S, M] in standard deviations of their minute; 0 means no news."""
    chance_M = np.full(SESSION_BARS, SURPRISES / SESSION_BARS)
    for hour, share in NEWS.items():
        chance_M[round((hour - 18) * 60)] = share
    happens_SM = rng.random((num_sessions, SESSION_BARS)) < chance_M
    jump_SM = np.zeros(happens_SM.shape)
    jump_SM[happens_SM] = rng.laplace(scale=NEWS_JUMP, size=int(happens_SM.sum()))
    return jump_SM


def _volatility(rng: np.random.Generator, news_SM: NDArray[np.bool_]) -> Floats:
    """Return the standard deviation of each minute's price change [S, M], in ticks at the first price."""
    num_sessions = len(news_SM)
    # The recursion steps all sessions at once. The day term connects one session with the next.
    phi_C = 0.5 ** (1 / LOG_VOL_HALF_LIVES)
    term_MCS = rng.standard_normal((SESSION_BARS, len(phi_C), num_sessions)) * LOG_VOL_STDS[:, None]
    term_MCS[1:] *= np.sqrt(1 - phi_C**2)[:, None]
    session, minute = np.nonzero(news_SM)
    term_MCS[minute, :, session] += NEWS_KICK
    for m in range(1, SESSION_BARS):
        term_MCS[m] += phi_C[:, None] * term_MCS[m - 1]

    phi_day = 0.5 ** (1 / DAY_HALF_LIFE)
    day_S = DAY_STD * rng.standard_normal(num_sessions)
    day_S[1:] *= np.sqrt(1 - phi_day**2)
    for s in range(1, num_sessions):
        day_S[s] += phi_day * day_S[s - 1]

    profile_M = np.interp(18 + np.arange(SESSION_BARS) / 60, list(PROFILE), list(PROFILE.values()))
    log_vol_SM = np.ascontiguousarray(term_MCS.sum(axis=1).T) + day_S[:, None]
    log_vol_SM += MINUTE_STD * rng.standard_normal(log_vol_SM.shape)
    return VOLATILITY * profile_M * np.exp(log_vol_SM)


def _surges(rng: np.random.Generator, sigma_SM: Floats) -> Floats:
    """Return the drift of each minute [S, M] in ticks; lower ``sigma_SM`` in place where an aftermath is quiet."""
    reach = 12 + AFTERMATH_BARS
    most = SESSION_BARS // reach
    wait_SE = rng.geometric(1 / SURGE_GAP, (len(sigma_SM), most))
    start_SE = wait_SE.cumsum(axis=1) + reach * np.arange(most)
    session, nth = np.nonzero(start_SE < SESSION_BARS - reach)
    start = start_SE[session, nth]
    size = len(start)

    surge_bars = rng.integers(5, 13, size)
    net = rng.choice([-1.0, 1.0], size) * rng.uniform(*SURGE_STRENGTH, size) * np.sqrt(surge_bars)
    outcome = rng.choice(3, size, p=OUTCOMES)
    back_bars = rng.integers(4, 16, size)
    back = np.where(outcome == 0, rng.uniform(0.5, 1.0, size), 0.0) * net

    drift_SM = np.zeros_like(sigma_SM)
    for j in range(reach):
        at = session, start + j
        surging = j < surge_bars
        returning = ~surging & (j < surge_bars + back_bars)
        quiet = ~surging & (outcome == 1) & (j < surge_bars + AFTERMATH_BARS)
        drift = np.where(surging, net / surge_bars, 0.0) - np.where(returning, back / back_bars, 0.0)
        drift_SM[at] = drift * sigma_SM[at]
        sigma_SM[at] *= np.where(quiet, QUIET, np.where(surging, 1.1, 1.0))
    return drift_SM


def _between_sessions(rng: np.random.Generator, trade_date_S: Days, contract_S: Ints) -> Floats:
    """Return the log price change from each session's close to the next open [S]: a break, a weekend, a roll."""
    weekend_S = np.diff(trade_date_S, append=trade_date_S[-1]).astype(np.int64) > 1
    shut_S = rng.standard_normal(len(trade_date_S)) * np.where(weekend_S, 30, 12) * VOLATILITY / TICKS_PER_LOG
    return shut_S + ROLL_BASIS * np.diff(contract_S, append=contract_S[-1])


def _trade(rng: np.random.Generator, sigma_SM: Floats, drift_SM: Floats, jump_SM: Floats, between_S: Floats) -> Floats:
    """Walk the price through every session; return bars [S * M, (open, high, low, close)] in ticks."""
    jump_at_SM = rng.integers(1, PRINTS, sigma_SM.shape)
    # Prints bounce between bid and ask. A quiet minute hardly bounces and may not move at all.
    flicker_SM = np.clip(FLICKER[0] * sigma_SM, FLICKER[1], FLICKER[2])
    minute = np.arange(SESSION_BARS)
    bar_SMP = np.empty((*sigma_SM.shape, 4))
    log_price = np.log(FIRST_PRICE / TICK)
    for s in range(len(sigma_SM)):
        step_MK = rng.standard_normal((SESSION_BARS, PRINTS))
        step_MK *= sigma_SM[s][:, None] / np.sqrt(PRINTS - 1)
        step_MK += drift_SM[s][:, None] / PRINTS
        step_MK[:, 0] *= OPEN_STEP
        step_MK[minute, jump_at_SM[s]] += jump_SM[s]
        step_MK[1:] -= REVERSAL / PRINTS * step_MK[:-1].sum(axis=1)[:, None]
        walk = log_price + step_MK.ravel().cumsum() / TICKS_PER_LOG
        log_price = walk[-1] + between_S[s]
        print_MK = np.exp(walk).reshape(step_MK.shape)
        print_MK += flicker_SM[s][:, None] * (rng.random(step_MK.shape) - 0.5)
        np.rint(print_MK, out=print_MK)
        bar_SMP[s, :, 0] = print_MK[:, 0]
        bar_SMP[s, :, 1] = print_MK.max(axis=1)
        bar_SMP[s, :, 2] = print_MK.min(axis=1)
        bar_SMP[s, :, 3] = print_MK[:, -1]
    return bar_SMP.reshape(-1, 4)


def _volume(rng: np.random.Generator, sigma_SM: Floats, ticks: Floats) -> NDArray[np.uint64]:
    """Return contracts traded [S * M]. They grow faster than volatility, and with the minute's actual range."""
    mean = 130 * sigma_SM.ravel() ** 2 * (1 + ticks[:, 1] - ticks[:, 2])
    return (1 + np.rint(mean * np.exp(0.5 * rng.standard_normal(len(mean))))).astype(np.uint64)
