"""Words that other programs and papers use for our settings and choices, and the nearest name to a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SYNONYMS = {  # our word, the last part of a setting or a choice -> words for it, without signs and in small letters
    # settings
    "accelerator": "device",
    "accumulate_grad_batches": "gradaccumulation gradientaccumulationsteps gradaccumsteps accumsteps accumulate",
    "augment": "aug augmentation augmentations transform transforms",
    "batch_size": "bs batch trainbatchsize minibatch minibatchsize batchsizetrain",
    "cache_dir": "cache cachepath",
    "checkpoint": "ckpt ckptpath weights checkpointpath modelpath pretrained",
    "compile": "torchcompile",
    "crop_px": "crop cropsize patch patchsize imagesize imgsize inputsize",
    "data": "dataset datamodule datasource datatype",
    "devices": "gpu gpus numgpus ngpus numdevices",
    "ema": "emadecay modelema",
    "gradient_clip_val": "clip clipgrad gradclip gradientclip clipnorm gradclipnorm maxgradnorm clipvalue clipgradnorm",
    "graph": "cudagraph cudagraphs",
    "init_from": "ckpt ckptpath weights checkpoint checkpointpath pretrained initialcheckpoint finetune",
    "lam": "lambda rate",
    "loss": "criterion lossfn lossfunction lossname losstype objective",
    "lr": "learningrate baselr initlr lrinit initiallr",
    "max_epochs": "epoch epochs numepochs nepochs maxepoch trainepochs totalepochs nepoch",
    "minutes": "time maxtime timelimit duration budget",
    "model": "arch architecture backbone net network modelname modeltype algorithm",
    "multirun": "sweep",
    "num_workers": "workers worker nworkers numworker jobs",
    "optimizer": "opt optim optimizername",
    "output": "out outdir outputdir outputpath outputfolder savedir savepath destination",
    "p": "prob probability",
    "patience": "earlystop earlystopping earlystoppingpatience",
    "per_channel": "bychannel channelwise",
    "precision": "amp fp16 bf16 mixedprecision dtype usemixedprecision",
    "resume": "continue restart resumefrom resumetraining resumefromcheckpoint",
    "root": "path dir folder directory images input inputs datapath datadir dataroot datafolder traindata traindir",
    "save_minutes": "saveinterval checkpointinterval",
    "scheduler": "sched lrscheduler lrschedule schedule schedulername",
    "seed": "randomseed manualseed rngseed",
    "sigma": "std stddev standarddeviation noiselevel noisesigma noisestd level strength",
    "source": "path root noisy lq input inputs",
    "study": "name expname experimentname runname taskname project projectname logdir outdir outputdir savedir workdir",
    "target": "gt groundtruth hr noisy2",
    "train_pairs": "trainsize stepsperepoch samplesperepoch epochsize numpatches patchesperepoch",
    "val_fraction": "valsplit validationsplit validationfraction valpercentage valratio valsize testsize testsplit",
    "val_root": "valpath valdir valdata valfolder validationdata validationdir testdir",
    "weight_decay": "wd l2reg",
    "width": "channels features filters basechannels numfilters numchannelsinit nfeat nf",
    # choices
    "bernoulli": "dropout mask masked",
    "brown": "correlated",
    "bsds300": "bsd bsd300 bsds",
    "burst": "frames stack video movie multiframe sequence",
    "charbonnier": "huber smoothl1 pseudohuber charbonnierloss",
    "clean": "supervised synthetic groundtruth",
    "cosine": "cos cosineannealing cosineannealinglr cosinelr coslr cosinedecay",
    "fast": "smoke test quick dryrun fastdevrun",
    "gaussian": "awgn gauss normal white",
    "hdr": "relativemse relmse",
    "impulse": "saltandpepper saltpepper sp random",
    "kodak24": "kodak",
    "l1": "mae l1loss meanabsoluteerror absolute",
    "l2": "mse l2loss mseloss meansquarederror squared",
    "neighbor2neighbor": "neighbour2neighbour ne2ne nb2nb",
    "noise2void": "n2v noise2self structn2v blindspot",
    "none": "constant fixed off no",
    "pairs": "pair paired noise2noise n2n",
    "photos": "photographs pictures natural",
    "plateau": "reducelronplateau reduceonplateau",
    "poisson": "shot photon shotnoise",
    "poisson_gaussian": "mixed camera sensor poissongauss",
    "r2r": "recorrupted2recorrupted recorruptedtorecorrupted",
    "red30": "red rednet redcnn",
    "sgd": "momentum sgdm nesterov",
    "single": "n2v noise2void neighbor2neighbor singleimage selfsupervised unpaired",
    "step": "steplr multistep exponential",
    "unet": "n2n noise2noise unet2d resunet",
    "zs_n2n": "zsn2n zeroshotnoise2noise zeroshot",
}
LIKELY = 0.75  # similarity of two names that are probably the same word


def nearest(name: str, names: Iterable[str], least: float = 0.5) -> str | None:
    """Return the name that somebody means by a mistyped name or a synonym; None if none is near.

    Args:
        name: what was typed.
        names: the names that there are.
        least: similarity, 0 to 1, that a near name has.
    """
    known = list(names)
    same = same_word(name, known) or similar_in_group(name, known)
    return same or next(iter(difflib.get_close_matches(name, known, n=1, cutoff=least)), None)


def same_word(name: str, names: Iterable[str]) -> str | None:
    """Return the setting or choice whose last part is the same word, or has it as a synonym; None if there is none.

    >>> same_word("learning_rate", ["model", "optimizer.lr"])
    'optimizer.lr'
    """
    known = list(dict.fromkeys(names))
    group, last = split(name)
    for spellings in ([last], words_for(last)):
        wanted = [plain(spelling) for spelling in spellings]
        found = [key for key in known if plain(split(key)[1]) in wanted]
        if found:
            return min(found, key=lambda key: (split(key)[0] != group, len(split(key)[0]), known.index(key)))
    return None


def similar_in_group(name: str, names: Iterable[str]) -> str | None:
    """Return the setting of the same group that is written nearly like this one; None if there is none."""
    group, last = split(name)
    inside = {split(key)[1]: key for key in names if group and split(key)[0] == group}
    near = difflib.get_close_matches(last, inside, n=1, cutoff=LIKELY)
    return inside[near[0]] if near else None


def split(key: str) -> tuple[str, str]:
    """Return the group and the last part of a dotted setting, or the folder and the name of a choice."""
    group, _, last = key.replace("/", ".").rpartition(".")
    return group, last


def words_for(word: str) -> list[str]:
    """Return our words for a word of other programs."""
    return [ours for ours, theirs in SYNONYMS.items() if plain(word) in theirs.split()]


def plain(word: str) -> str:
    """Return a word in small letters and without signs, as U-Net, UNet and u_net mean the same."""
    return "".join(filter(str.isalnum, word)).lower()
