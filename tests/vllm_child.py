"""Runs the tasks on vLLM in a process of its own (two engines in one process do not fit), and says what came out.

python vllm_child.py MODEL OUTPUT.json
"""

import json
import os
import sys
from typing import Any


def main(model: str, output: str) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.api.registry import get_model
    from lm_eval.tasks import TaskManager
    from vllm.platforms import current_platform

    from lm_eval_tofu.tasks import TASKS_DIR

    arguments = {"pretrained": model, "dtype": "float32", "enforce_eager": True, "max_model_len": 1024}
    # Two authors: with fewer there are no intervals, and with fewer rows no four clues.
    metadata = {**arguments, "tofu": "mini", "forget_split": "forget10", "best_of_n": 8}
    lm = get_model("vllm")(**arguments, batch_size="auto")
    manager = TaskManager(include_path=str(TASKS_DIR), include_defaults=False, metadata=metadata)
    results = simple_evaluate(
        model=lm,
        tasks=["tofu"],
        task_manager=manager,
        apply_chat_template=True,
        gen_kwargs={"max_gen_toks": 12},
        bootstrap_iters=0,
    )
    # The same log-likelihoods once more, forwards and backwards, with vLLM's prefix caching as it is by default.
    task: Any = manager.load(["tofu_forget_quality"])["tasks"]["tofu_forget_quality"]
    task.build_all_requests(apply_chat_template=True, chat_template=lm.apply_chat_template)
    requests = [request for request in task.instances if request.request_type == "loglikelihood"]
    forwards = [value for value, _ in lm.loglikelihood(requests)]
    backwards = [value for value, _ in lm.loglikelihood(requests[::-1])][::-1]
    # The same samples once more, in the same order and the other way round.
    task = manager.load(["tofu_best_of_n"])["tasks"]["tofu_best_of_n"]
    task.build_all_requests(limit=2, apply_chat_template=True, chat_template=lm.apply_chat_template)
    drawn = [lm.generate_until(requests) for requests in (task.instances, task.instances, task.instances[::-1])]
    samples = {
        name: [sample[key] for sample in results["samples"][name]]
        for name, key in (
            ("tofu_forget_quality", "forget_quality"),
            ("tofu_model_utility", "model_utility"),
            ("tofu_answer_logprob", "answer_logprob"),
        )
    }
    content = {"results": results["results"], "samples": samples, "forwards": forwards, "backwards": backwards}
    content["seeded"] = all("seed" in request.args[1] for request in task.instances)
    content["cpu"] = current_platform.is_cpu()
    content["drawn"] = [drawn[0], drawn[1], drawn[2][::-1]]
    content["arms"] = {name: config["arm"] for name, config in results["configs"].items()}
    with open(output, "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(content, file)
    # The engine's own threads now and then abort the interpreter's shutdown ("terminate called without an active
    # exception"), which would look like a failed run: the engine is stopped first, and this process then ends at once.
    lm.model.llm_engine.engine_core.shutdown()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
