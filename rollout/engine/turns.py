"""The next turns of completions that an environment answers: each is a request of its own, whose prefix is cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from rollout.engine.requests import sampled_logprobs, sampling_params, versions_of
from rollout.engine.versioned import SampledRequest
from rollout.prompts.decoding import completion_decoder
from rollout.prompts.observations import ObservationEncoder
from rollout.types.prompts import Tokens
from rollout.types.sampling import EngineSpec, TurnRules, prompt_seed
from rollout.types.turns import CompletionKey, NextTurn, PackedTurns, SampledTurn, TurnEnd, TurnRequest

NOTHING = np.zeros(0, dtype=np.int32)
Turns = tuple[SampledTurn, ...]


class TurnSampler:
    """Samples the next turn after a prompt and the turns so far. It keeps no state: the caller has the turns."""

    def __init__(self, rules: TurnRules, encoder: ObservationEncoder, decode: Callable[[Tokens], str]) -> None:
        """Raise ValueError if the limit leaves no room for more than an observation's frame and the mark of a cut."""
        if rules.max_observed_tokens < encoder.least:
            raise ValueError(
                f"environment.max_observed_tokens = {rules.max_observed_tokens} does not hold what stands around an "
                f"observation that is cut, the model's chat template and the mark: raise it to {encoder.least} at least"
            )
        self._rules = rules
        self._encoder = encoder
        self._decode = decode

    def sample(
        self,
        request: TurnRequest,
        past: Sequence[Turns],
        stream: Callable[[Sequence[tuple[str, Any, Any]]], Iterator[SampledRequest]],
    ) -> Iterator[PackedTurns]:
        """Yield each completion so far as its turn ends, and at once those that have no room for one.

        Args:
            past: turns so far, by the places that the request names.
            stream: adds requests to the engine, all at once, and yields them as they finish.
        """
        asked: list[tuple[str, Any, Any]] = []
        begun: dict[str, tuple[NextTurn, Turns, Tokens]] = {}
        for each in request.turns:
            turns = () if each.place is None else past[each.place]
            key = each.prompt.id, each.position
            observed = self._observed(each.said, turns)
            num_left = request.sampling.max_completion_tokens - sum(len(turn.token_ids) for turn in turns)
            if turns and (isinstance(observed, str) or num_left < 1):
                yield PackedTurns.of(key, turns, observed if isinstance(observed, str) else "length")
                continue
            found = NOTHING if isinstance(observed, str) else observed
            request_id = f"{each.prompt.id}/{each.position}/{len(turns)}"
            begun[request_id] = each, turns, found
            asked.append((request_id, *self._request(each, turns, found, request, num_left)))
        for sampled in stream(asked) if asked else ():
            yield self._longer(*begun[sampled.request_id], sampled.outputs[0])

    def _request(
        self, each: NextTurn, turns: Turns, observed: Tokens, request: TurnRequest, num_left: int
    ) -> tuple[Any, Any]:
        """Return the engine's prompt and parameters."""
        token_ids = [each.prompt.token_ids, *(ids for turn in turns for ids in (turn.observed_ids, turn.token_ids))]
        prompt = {"prompt_token_ids": np.concatenate([*token_ids, observed]).tolist()}
        stop = self._rules.stops.get(each.prompt.environment, ())
        seed = turn_seed(request.seed, (each.prompt.id, each.position), len(turns))
        return prompt, sampling_params(request.sampling, 1, seed, max_tokens=num_left, stop=stop)

    def _observed(self, said: str, turns: Turns) -> Tokens | TurnEnd:
        """Return the tokens of the next observation, or why the tokenizer cannot encode it."""
        if not turns and not said:
            return NOTHING
        left = self._rules.max_observed_tokens - sum(len(turn.observed_ids) for turn in turns)
        try:
            found = self._encoder.encode(said, int(turns[-1].token_ids[-1]) if turns else None, left)
        except ValueError:
            return "unreadable"
        return "length" if found is None else found

    def _longer(self, each: NextTurn, turns: Turns, observed: Tokens, output: Any) -> PackedTurns:
        token_ids = np.asarray(output.token_ids, dtype=np.int32)
        end = end_of(output, self._rules.stops.get(each.prompt.environment, ()))
        turn = SampledTurn(
            said=each.said,
            observed_ids=observed,
            observed_text=self._decode(observed) if len(observed) else "",
            token_ids=token_ids,
            logprobs=sampled_logprobs(output),
            text=self._decode(token_ids),
            policy_versions=versions_of(output),
            stop=output.stop_reason if end == "observation" else "",
        )
        is_unread = bool(each.said) and not turns and not len(observed)
        return PackedTurns.of((each.prompt.id, each.position), (*turns, turn), "unreadable" if is_unread else end)


def turn_seed(seed: int, key: CompletionKey, num_turns: int) -> int:
    """Return the seed of a completion's turn by its number; the first has the seed of a completion with one turn."""
    prompt_id, index = key
    return prompt_seed(seed, f"{prompt_id}/{index}/{num_turns}") if num_turns else prompt_seed(seed, prompt_id) + index


def end_of(output: Any, stops: Sequence[str]) -> TurnEnd:
    """Return why one of vLLM's CompletionOutputs ended, where `stops` are an environment's."""
    if output.finish_reason == "length":
        return "length"
    if isinstance(output.stop_reason, str):
        return "observation" if output.stop_reason in stops else "stop"
    return "end_token"


def turn_sampler(spec: EngineSpec, tokenizer: Any) -> TurnSampler | None:
    """Return the sampler of turns for an engine of `spec`; None without environments. Raises ValueError."""
    if spec.turns is None:
        return None
    encoder = ObservationEncoder(tokenizer, chat=spec.turns.chat)
    return TurnSampler(spec.turns, encoder, completion_decoder(tokenizer))
