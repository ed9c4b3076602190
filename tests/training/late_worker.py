"""What test_distributed.py starts under torchrun: the second process kills itself, and after the
restart comes late, so that the first one is alone with the addresses of the dead for a while."""

import os
import signal
import time

import torch

from training import distributed

if __name__ == "__main__":
    attempt, number = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
    if (attempt, number) == ("1", "1"):
        time.sleep(3)
    with distributed.process_group(torch.device("cpu")):
        total = int(distributed.total(torch.tensor(1)))
        if (attempt, number) == ("0", "1"):
            os.kill(os.getpid(), signal.SIGKILL)
        distributed.total(torch.tensor(1))
        if number == "0":
            print(f"attempt {attempt}: {total} processes")
