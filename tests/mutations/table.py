"""What run.py breaks: one expression of the product a row, so that a user would notice."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """`name`: what a user would notice. `old`: a text that `file` has once, which becomes `new`.

    `test`: of tests/, which should fail then. `needs`: what it starts that takes long, if anything.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
    needs: str = ""


FAL, QUEUE, MEDIA = "pipeline/fal", "pipeline/fal/queue", "pipeline/fal/media"
LOCAL, LOAD, EXPORT = "pipeline/local", "pipeline/local/load", "pipeline/export"
HOST, NATIVE, WEB = "nodes/host", "nodes/native", "web/js/cosmos_predict25.js"
BROWSER, COMFYUI = "a browser", "a ComfyUI"

PAID_PATH = (
    Mutation(
        "a job whose answer was lost is sent and paid for again",
        f"{QUEUE}/verdict.py",
        "Rule(V.UNKNOWN)",
        "Rule(V.UNKNOWN, times=2)",
        "test_fal_lost_answer.py::test_a_connection_that_ends_before_the_request_is_read_is_not_repeated",
    ),
    Mutation(
        "a program that is killed while it sends a job forgets it",
        f"{FAL}/budget.py",
        "record.state = JobState.SUBMIT_UNKNOWN",
        "record.state = JobState.ENDED",
        "test_fal_journal.py::test_the_record_is_on_disk_before_the_job_is_sent",
    ),
    Mutation(
        "a job that has failed before is taken for the lost one",
        f"{FAL}/lost_job.py",
        " | set(record.past_ids)",
        "",
        "test_fal_lost_answer.py::test_each_trait_alone_leaves_a_job_out",
    ),
    Mutation(
        "a cancellation that fal has only noted is forgotten",
        f"{FAL}/paid_job.py",
        "if answer in (Cancellation.REMOVED, Cancellation.REQUESTED):",
        "if answer is Cancellation.REMOVED:",
        "test_fal_cancel.py::test_a_cancelled_job_leaves_nothing",
    ),
    Mutation(
        "a finished video that is there is fetched again when it may not be read",
        f"{FAL}/paid_job.py",
        "except PermissionError as error:",
        "except ZeroDivisionError as error:",
        "test_fal_media.py::test_a_finished_file_that_is_held_is_not_said_to_be_another_one",
    ),
    Mutation(
        "a lost job is looked for too late where fal's clock is behind",
        f"{FAL}/lost_job.py",
        "timedelta(seconds=min(0, record.clock_offset))",
        "timedelta(seconds=max(0, record.clock_offset))",
        "test_fal_lost_answer.py::test_a_clock_that_is_wrong_does_not_hide_a_lost_job",
    ),
    Mutation(
        "a record is lost when the power fails",
        "pipeline/disk.py",
        "flush_file(temporary)",
        "pass",
        "test_fal_journal.py::test_the_record_is_on_disk_before_the_job_is_sent",
    ),
    Mutation(
        "others on the computer can read the records of jobs",
        f"{FAL}/journal.py",
        "mode=0o600",
        "mode=0o644",
        "test_fal_journal.py::test_the_record_is_on_disk_before_the_job_is_sent",
    ),
    Mutation(
        "a negative prompt that fal repeats is shown",
        f"{FAL}/redaction.py",
        '("prompt", "negative_prompt", ',
        '("prompt", ',
        "test_fal_result.py::test_a_reason_that_says_the_prompt_and_the_key_again_is_shown_without_them",
    ),
    Mutation(
        "the address of a clip that fal repeats is shown",
        f"{FAL}/redaction.py",
        '"image_url", "video_url")',
        '"image_url")',
        "test_fal_result.py::test_a_reason_that_says_the_address_of_the_start_again_is_shown_without_it",
    ),
    Mutation(
        "the id of the key that a server repeats is shown",
        f"{FAL}/redaction.py",
        "(key.secret, key.key_id)",
        "(key.secret,)",
        "test_fal_key.py::test_nothing_of_the_key_is_left_in_a_value_of_json",
    ),
    Mutation(
        "a lost job with guidance 7.0 is not found where fal's list says 7",
        f"{FAL}/endpoints.py",
        "int(value) if isinstance(value, float) and value.is_integer() else value",
        "value",
        "test_fal_lost_answer.py::test_a_lost_job_is_found_where_fal_lists_a_whole_number_without_its_fraction",
    ),
    Mutation(
        "the bar is full while fal still works",
        f"{FAL}/display.py",
        "MAX_PROGRESS = 0.95",
        "MAX_PROGRESS = 1.0",
        "test_fal_status.py::test_the_bar_follows_the_run_and_is_not_full_before_the_end",
    ),
    Mutation(
        "a date in Retry-After is read as local time",
        f"{QUEUE}/retry.py",
        "(aware - datetime.now(timezone.utc))",
        "(aware.replace(tzinfo=None) - datetime.now())",
        "test_fal_retry.py::test_retry_after_of_a_date_is_not_the_time_of_this_place",
    ),
    Mutation(
        "a server that asks for an hour's pause gets it",
        f"{QUEUE}/retry.py",
        "RETRY_AFTER_LIMITS = (1.0, 120.0)",
        "RETRY_AFTER_LIMITS = (1.0, 7200.0)",
        "test_fal_retry.py::test_retry_after",
    ),
    Mutation(
        "unknown states of a job are counted over the whole job",
        "pipeline/fal/client.py",
        "0 if status else unknown_states + 1",
        "unknown_states + (not status)",
        "test_fal_follow.py::test_states_that_are_not_known_end_the_run_only_where_nothing_else_comes",
    ),
    Mutation(
        "an hour's job is looked at every second",
        f"{QUEUE}/policy.py",
        "reversed(self.poll_intervals) if waited >= start",
        "self.poll_intervals if waited >= start",
        "test_fal_follow.py::test_the_longer_a_job_takes_the_longer_are_the_pauses",
    ),
    Mutation(
        "a job that was removed from the queue is said to run on",
        "pipeline/fal/client.py",
        "Cancellation.REQUESTED if status == 202 else Cancellation.REMOVED",
        "Cancellation.REQUESTED",
        "test_fal_cancel.py::test_each_answer_to_a_cancellation_is_understood",
    ),
    Mutation(
        "only the first hundred jobs of fal's list are looked through",
        f"{QUEUE}/platform.py",
        'query["cursor"] = cursor',
        'query["page"] = cursor',
        "test_fal_lost_answer.py::test_all_pages_are_read",
    ),
    Mutation(
        "a video is fetched from a stranger's host whose name ends like fal's",
        f"{MEDIA}/download.py",
        'host.endswith(f".{name}")',
        "host.endswith(name)",
        "test_fal_media.py::test_illegal_addresses_are_never_asked",
    ),
    Mutation(
        "an address that has run out is not asked for anew",
        f"{MEDIA}/download.py",
        "if status in (403, 404, 410):",
        "if status in (404, 410):",
        "test_fal_media.py::test_an_address_that_is_over_is_asked_for_again",
    ),
    Mutation(
        "an uploaded picture stays at fal for ever",
        f"{MEDIA}/upload.py",
        '"X-Fal-Object-Lifecycle": LIFETIME,',
        "",
        "test_fal_upload.py::test_a_video_starts_from_what_was_uploaded",
    ),
    Mutation(
        "a GIF of fal's is shown up to 11 % too fast",
        f"{MEDIA}/probe.py",
        'if format.suffix == ".gif" and seconds',
        'if format.suffix == ".gif" and not seconds',
        "test_fal_media.py::test_every_format_is_the_servers_own_file",
    ),
    Mutation(
        "Extend on fal runs the graph before it misses the key",
        "nodes/extend_fal.py",
        "key_for(NetworkPolicy.from_environment())",
        "NetworkPolicy.from_environment()",
        "test_fal_key.py::test_without_a_good_key_the_nodes_refuse_before_the_graph_runs",
    ),
    Mutation(
        "Generate on fal runs the graph before it misses the key",
        "nodes/generate_fal.py",
        "key_for(NetworkPolicy.from_environment())",
        "NetworkPolicy.from_environment()",
        "test_fal_key.py::test_without_a_good_key_the_nodes_refuse_before_the_graph_runs",
    ),
    Mutation(
        "the second part of a video at fal is paid for again when it is run again",
        "pipeline/fal/chain.py",
        'f"continues:{job_name}:{used}"',
        '""',
        "test_fal_node.py::test_a_video_is_extended_at_fal_in_parts_that_are_paid_for_once",
        COMFYUI,
    ),
    Mutation(
        "the price of three parts is that of one",
        "pipeline/fal/extension.py",
        "price.times(count)",
        "price.times(1)",
        "test_fal_price.py::test_the_price_of_parts_is_added_up_only_where_it_is_that_of_a_video",
    ),
)

MEMORY = (
    Mutation(
        "one streamed layer fewer is planned for",
        f"{HOST}/compat.py",
        'return 1 + getattr(model_management, "NUM_STREAMS", 2)',
        'return getattr(model_management, "NUM_STREAMS", 2)',
        "test_host.py::test_a_gpu_gives_all_but_the_reserve_and_room_for_the_streamed_layers",
    ),
    Mutation(
        "less is planned for than the layers that are streamed at once take",
        f"{LOCAL}/plan.py",
        "max(memory.layers_in_flight * part.largest_layer",
        "max((memory.layers_in_flight - 1) * part.largest_layer",
        "test_memory_plan.py::test_a_streamed_part_leaves_room_for_its_layers_in_flight_and_a_fifth_of_the_card",
    ),
    Mutation(
        "with --novram a model stays on the GPU",
        f"{HOST}/compat.py",
        'getattr(model_management, "vram_state", None) == state.NO_VRAM',
        "False",
        "test_host.py::test_a_gpu_gives_all_but_the_reserve_and_room_for_the_streamed_layers",
    ),
    Mutation(
        "the text encoder overflows on a GPU without bfloat16",
        f"{HOST}/memory.py",
        "weights if is_cpu or model_management.should_use_bf16(device) else torch.float32",
        "weights",
        "test_host.py::test_the_text_encoder_computes_in_float32_on_a_gpu_without_bfloat16",
    ),
    Mutation(
        "what is not to be used of the memory is taken by weights",
        f"{LOCAL}/plan.py",
        "0 if self.memory == UNLIMITED else self.memory.free - self.memory.usable",
        "0",
        "test_memory_plan.py::test_a_streamed_part_leaves_room_for_its_layers_in_flight_and_a_fifth_of_the_card",
    ),
    Mutation(
        "what ComfyUI holds in reserve is planned with",
        f"{HOST}/memory.py",
        "free=free - model_management.extra_reserved_memory()",
        "free=free",
        "test_host.py::test_a_gpu_gives_all_but_the_reserve_and_room_for_the_streamed_layers",
    ),
    Mutation(
        "what other models take of the GPU is not planned with, though they leave it",
        f"{HOST}/memory.py",
        "free += loaded.model.loaded_size()",
        "pass",
        "test_host.py::test_a_gpu_gives_all_but_the_reserve_and_room_for_the_streamed_layers",
    ),
    Mutation(
        "the model stays twice in memory after it has left the GPU",
        f"{HOST}/memory.py",
        "self.model.put_back_weights_from_disk(self.load_device.type)",
        "pass",
        "test_host.py::test_unloading_puts_the_weights_from_disk_back",
    ),
    Mutation(
        "all of the free memory is planned with",
        f"{LOCAL}/sizes.py",
        "return USED_SHARE * self.free",
        "return self.free",
        "test_memory_plan.py::test_a_stage_takes_what_the_plan_predicts",
    ),
    Mutation(
        "a video that does not fit into RAM is begun",
        f"{LOCAL}/plan.py",
        "if frame_bytes(num_frames, height, width) > memory.ram:",
        "if frame_bytes(num_frames, height, width) < 0:",
        "test_memory_plan.py::test_frames_that_do_not_fit_into_ram_are_an_error_too",
    ),
    Mutation(
        "a known prompt goes from the disk though it is used every day",
        f"{LOCAL}/prompt_cache.py",
        "os.utime(file)",
        "pass",
        "test_prompt_files.py::test_above_the_bound_those_that_were_used_longest_ago_go",
    ),
    Mutation(
        "another checkpoint takes the embeddings of this one",
        f"{LOCAL}/prompt_cache.py",
        "hashlib.sha256(self._weights + tokens)",
        "hashlib.sha256(tokens)",
        "test_prompt_files.py::test_a_checkpoint_does_not_take_the_embeddings_of_another",
    ),
    Mutation(
        "a prompt of the last runs is encoded again",
        f"{LOCAL}/prompt_cache.py",
        "self._embeds.move_to_end(text)",
        "pass",
        "test_generate.py::test_the_prompts_that_were_used_last_are_kept",
    ),
)

SCHEDULE = (
    Mutation(
        "guidance counts one less than on fal",
        f"{LOCAL}/denoise.py",
        "velocity + guidance_scale * (velocity - negative)",
        "negative + guidance_scale * (velocity - negative)",
        "test_same_numbers_as_diffusers.py::test_every_step_and_frame_is_that_of_diffusers",
    ),
    Mutation(
        "few steps are spread as many are",
        f"{LOCAL}/schedule.py",
        "FEW_STEPS_SIGMA_MIN, FEW_STEPS_RHO = 0.1, 10",
        "FEW_STEPS_SIGMA_MIN, FEW_STEPS_RHO = 0.1, 7",
        "test_schedule.py::test_few_steps_are_karras_from_the_models_sigma_to_a_tenth_with_rho_10",
    ),
    Mutation(
        "few steps go up where they begin with little noise",
        f"{LOCAL}/schedule.py",
        "min(FEW_STEPS_SIGMA_MIN, highest / 2)",
        "FEW_STEPS_SIGMA_MIN",
        "test_schedule.py::test_few_steps_go_down_from_a_little_noise_too",
    ),
    Mutation(
        "the distilled schedule puts too much noise back",
        f"{LOCAL}/schedule.py",
        "self._noise, self.sigmas[index + 1].item()",
        "self._noise, self.sigmas[index].item()",
        "test_schedule.py::test_the_same_noise_is_put_back_after_each_step",
    ),
    Mutation(
        "strong guidance in few steps is not warned of",
        "pipeline/request.py",
        "self.guidance_scale >= STRONG_GUIDANCE",
        "self.guidance_scale > STRONG_GUIDANCE",
        "test_request.py::test_what_a_video_will_suffer_from_is_told",
    ),
    Mutation(
        "a video of 94 frames loses its last latent",
        f"{LOCAL}/latents.py",
        "-(-(num_frames - 1) // TEMPORAL_COMPRESSION) + 1",
        "(num_frames - 1) // TEMPORAL_COMPRESSION + 1",
        "test_generate.py::test_every_frame_count_gives_that_many_frames",
    ),
)

CONDITIONING = (
    Mutation(
        "latents that could not be decoded go on with another start picture",
        f"{LOCAL}/unfinished.py",
        "not self._kept[1].equal(conditioning_frames)",
        "self._kept[1].shape != conditioning_frames.shape",
        "test_condition.py::test_latents_that_could_not_be_decoded_belong_to_their_start",
    ),
    Mutation(
        "known frames count as noise for the transformer",
        f"{LOCAL}/denoise.py",
        "sigma.new_full((num_conditioning_latents,), conditioning_timestep)",
        "sigma.expand(num_conditioning_latents)",
        "test_same_numbers_as_diffusers.py::test_every_step_and_frame_from_a_start_is_that_of_diffusers",
    ),
    Mutation(
        "a clip of 24 frames a second is taken for one of 16",
        "pipeline/start.py",
        "Fraction(self.frame_rate) / FPS, self.num",
        "Fraction(FPS) / FPS, self.num",
        "test_condition.py::test_the_model_is_given_the_last_five_moments_a_sixteenth_apart",
    ),
    Mutation(
        "what is transparent in a start picture becomes its hidden colour",
        "pipeline/start.py",
        "values[..., :3] * values[..., 3:]",
        "values[..., :3]",
        "test_condition.py::test_gray_and_transparent_pictures",
    ),
    Mutation(
        "the sound of an extended clip comes too late",
        f"{HOST}/clips.py",
        "audio=sound_from(audio, clip.skipped())",
        "audio=audio",
        "test_extend_node.py::test_a_clip_goes_on_with_its_sound",
        COMFYUI,
    ),
    Mutation(
        "the part after the largest seed is refused",
        "pipeline/extension.py",
        "+ index) % (SEED.maximum + 1)",
        "+ index)",
        "test_extend.py::test_each_part_follows_the_one_before",
    ),
    Mutation(
        "a long source that cannot be held with what is added is begun",
        "pipeline/extension.py",
        "if needed > ram:",
        "if needed < 0:",
        "test_extend.py::test_a_joined_video_that_does_not_fit_into_the_memory_is_refused_before_anything_runs",
    ),
)

EXPORTING = (
    Mutation(
        "another sound track is saved than ComfyUI plays",
        "pipeline/clip/file.py",
        "return [stream for stream in container.streams.audio if stream.codec_context is not None]",
        "return [stream for stream in container.streams.audio if stream.codec_context is not None][:1]",
        "test_export_file.py::test_of_several_sounds_the_one_is_taken_that_comfyui_plays",
    ),
    Mutation(
        "ProRes 422 is copied as 4444",
        f"{EXPORT}/copy.py",
        'codec_tag == "ap4h"',
        'codec_tag != ""',
        "test_export.py::test_remux_takes_no_other_prores_for_4444",
    ),
    Mutation(
        "an all-intra clip becomes nine times as large",
        f"{EXPORT}/export.py",
        "picture.pict_type = 0",
        "picture.pict_type = picture.pict_type",
        "test_export_file.py::test_an_all_intra_file_does_not_become_another_one",
    ),
    Mutation(
        "a file is copied with the graph that made its source",
        f"{EXPORT}/copy.py",
        "GRAPH | {key.lower() for key in added}",
        "{key.lower() for key in added}",
        "test_export.py::test_remux_drops_the_graph_of_the_source",
    ),
    Mutation(
        "a video that a phone filmed upright lies on its side",
        "pipeline/clip/pictures.py",
        "np.rot90(image, round(picture.rotation // 90))",
        "image",
        "test_export_file.py::test_a_picture_that_lies_on_its_side_is_put_upright",
    ),
    Mutation(
        "sound that begins late comes too early",
        "pipeline/clip/sound.py",
        "if late > 0:",
        "if late > 10**9:",
        "test_export_file.py::test_sound_stays_with_the_pictures",
    ),
    Mutation(
        "an opaque ProRes file is saved as a transparent one",
        "pipeline/clip/pictures.py",
        "OPAQUE = 1 - 0.5 / 255",
        "OPAQUE = 1",
        "test_export_file.py::test_a_file_has_alpha_only_where_something_is_seen_through",
    ),
    Mutation(
        "29.97 frames a second drift from the sound",
        f"{EXPORT}/export.py",
        "FPS_DENOMINATOR = 10_000",
        "FPS_DENOMINATOR = 100",
        "test_export.py::test_a_float_is_the_fraction_that_it_stands_for",
    ),
    Mutation(
        "colours are those of BT.601",
        f"{EXPORT}/yuv.py",
        "RED, GREEN, BLUE = 0.2126, 0.7152, 0.0722",
        "RED, GREEN, BLUE = 0.299, 0.587, 0.114",
        "test_export.py::test_colours_come_back",
    ),
    Mutation(
        "a slow fade is followed late in a GIF",
        f"{EXPORT}/gif.py",
        "LAG = 0.1",
        "LAG = 1000",
        "test_export.py::test_a_gif_follows_a_slow_fade",
    ),
    Mutation(
        "the workflow of the GIF before lies beside a new one",
        f"{EXPORT}/metadata.py",
        "sidecar.unlink()",
        "pass",
        "test_export.py::test_a_gif_keeps_no_workflow_of_the_one_before",
    ),
)

LOADING = (
    Mutation(
        "no checkpoint is found behind a link",
        f"{LOAD}/find.py",
        "os.walk(root, followlinks=True)",
        "os.walk(root)",
        "test_checkpoint.py::test_a_checkpoint_behind_a_link_is_found",
    ),
    Mutation(
        "a VAE file of another kind is not refused",
        f"{LOAD}/parts.py",
        "if len(shape) != 5:",
        "if len(shape) < 4:",
        "test_checkpoint.py::test_a_vae_for_pictures_is_refused",
    ),
    Mutation(
        "a VAE file of another kind is taken by ComfyUI's own nodes",
        f"{NATIVE}/vae.py",
        'check_same_tensors(expected, parts.vae, "the Wan 2.1 VAE")',
        "",
        "test_checkpoint.py::test_another_vae_is_refused_by_comfyuis_own_nodes_too",
    ),
    Mutation(
        "the text encoder overflows in float16",
        f"{LOAD}/checkpoint.py",
        "torch.bfloat16 if dtype == torch.float16 else dtype",
        "dtype",
        "test_checkpoint.py::test_the_text_encoder_is_never_float16",
    ),
    Mutation(
        "a folder that a Mac has copied is not loaded",
        f"{LOAD}/weights.py",
        '"[!.]*.safetensors"',
        '"*.safetensors"',
        "test_checkpoint.py::test_a_macs_files_beside_the_weights_are_left_alone",
    ),
    Mutation(
        "the smallest checkpoint is taken for auto",
        f"{LOAD}/find.py",
        "-size_of_weights(item[1])",
        "size_of_weights(item[1])",
        "test_checkpoint.py::test_find_lists_cosmos_pipelines_the_largest_first",
    ),
    Mutation(
        "a LoRA with rank-stabilised scale is too weak",
        f"{LOAD}/lora.py",
        "alpha * math.sqrt(rank) if",
        "alpha if",
        "test_lora.py::test_a_file_of_peft_and_diffusers_does_what_peft_does",
    ),
    Mutation(
        "what makes a LoRA stronger in some layers is left out",
        f"{LOAD}/lora.py",
        'settings.get("alpha_pattern", {})',
        "{}",
        "test_lora.py::test_alpha_is_read_from_the_metadata_that_diffusers_writes",
    ),
    Mutation(
        "a training state of NVIDIA's is taken for another model",
        f"{LOAD}/parts.py",
        'name.startswith("net_ema.")',
        'name.startswith("ema.")',
        "test_checkpoint.py::test_a_state_of_nvidias_training_names_the_file_to_take",
    ),
)

NODES = (
    Mutation(
        "a file outside of the output folder is written",
        "nodes/export_video.py",
        "if folder not in (folder / filename_prefix).resolve().parents:",
        "if not filename_prefix:",
        "test_export_node.py::test_bad_input_is_refused_on_the_node_before_the_video_is_made",
        COMFYUI,
    ),
    Mutation(
        "other audio is left out of a video that is saved as it is",
        "nodes/export_video.py",
        "None if audio else file_of(video)",
        "file_of(video)",
        "test_export_node.py::test_as_is_does_not_keep_the_sound_that_other_audio_takes_the_place_of",
        COMFYUI,
    ),
    Mutation(
        "the files of a text encoder's folder are offered one by one",
        "nodes/checkpoint_inputs.py",
        " and not name.startswith(folders)",
        "",
        "test_host.py::test_the_files_of_a_text_encoders_folder_are_not_offered_one_by_one",
    ),
    Mutation(
        "a title with a slash makes a folder",
        f"{HOST}/filenames.py",
        "_safe(_value(match[1]",
        "str(_value(match[1]",
        "test_export_node.py::test_a_filled_in_value_makes_no_folder_and_no_name_that_windows_forbids",
        COMFYUI,
    ),
    Mutation(
        "a GIF goes on as a video that is too fast",
        f"{HOST}/videos.py",
        "components.frame_rate = self._frame_rate_of(len(components.images))",
        "pass",
        "test_export_node.py::test_a_gif_goes_on_with_its_own_frame_rate",
        COMFYUI,
    ),
    Mutation(
        "a replaced checkpoint is not loaded again",
        "nodes/checkpoint_inputs.py",
        "file.stat().st_mtime_ns",
        "0",
        "test_host.py::test_a_loader_runs_again_when_a_file_of_its_checkpoint_was_replaced",
    ),
    Mutation(
        "a prompt without a shape is drawn by the demo without a word",
        f"{HOST}/notes.py",
        "and not names_a_demo_shape(asked.prompt)",
        "and names_a_demo_shape(asked.prompt)",
        "test_comfyui.py::test_the_demo_makes_a_video_of_its_size_and_says_what_it_knows",
        COMFYUI,
    ),
    Mutation(
        "of a clip that was cut the end of the whole file is gone on from",
        f"{HOST}/videos.py",
        "seconds if ends_early else 0.0",
        "0.0",
        "test_extend_node.py::test_of_a_long_file_only_the_end_is_decoded",
    ),
)

OWN_CLASSES = (
    Mutation(
        "the first frames of a second stage are noise",
        f"{NATIVE}/model.py",
        "torch.where(denoise_mask > 0, samples, latent_image.to(samples))",
        "samples",
        "test_mix.py::test_a_graph_of_core_nodes_makes_what_it_should",
        COMFYUI,
    ),
    Mutation(
        "another model's picture in the conditioning makes blank frames",
        f"{NATIVE}/refusals.py",
        "if conds.get(name) is not None]",
        "if not conds]",
        "test_mix.py::test_a_graph_of_core_nodes_makes_what_it_should",
        COMFYUI,
    ),
    Mutation(
        "ComfyUI's training has no gradient",
        f"{NATIVE}/training.py",
        "if rope_emb is None or not model_management.in_training:",
        "if True:",
        "test_train_lora.py::test_what_comfyui_trains_changes_the_video_in_both_engines",
        COMFYUI,
    ),
    Mutation(
        "a LoRA is taken in part",
        f"{LOAD}/lora.py",
        "_refuse_a_part_of_it(file, named, shapes)\n    tensors",
        "tensors",
        "test_lora.py::test_a_file_is_taken_as_a_whole_or_not_at_all",
    ),
    Mutation(
        "a saved model takes the projection of any checkpoint",
        f"{LOAD}/saved.py",
        "and without_projection(sources) == shapes",
        "",
        "test_saved.py::test_the_projection_is_found_where_one_checkpoint_fits",
    ),
    Mutation(
        "the prompt writer never stops",
        f"{NATIVE}/writer.py",
        "if token.item() in self.stop_tokens:",
        "if token.item() in ():",
        "test_native.py::test_the_writer_stops_at_the_end_of_its_text",
    ),
    Mutation(
        "the own sampler's preview shows noise",
        f"{NATIVE}/sampler.py",
        '"denoised": denoised}',
        '"denoised": x}',
        "test_native.py::test_the_own_samplers_preview_is_the_video_as_it_is_guessed",
    ),
    Mutation(
        "previews of the demo have Wan's colours",
        f"{HOST}/observers.py",
        'latent_format.latent_rgb_factors = vae.config["_latent_rgb_factors"]',
        "latent_format.latent_rgb_factors = latent_formats.Wan21().latent_rgb_factors",
        "test_host.py::test_the_preview_has_the_colors_of_the_demos_video_and_wans_factors_else",
    ),
)

JAVASCRIPT = (
    Mutation(
        "results of a job show in another workflow",
        WEB,
        "[undefined, root()?.id].includes(jobs.get(prompt_id)?.workflow)",
        "true",
        "test_fal_browser.py::test_a_result_stays_off_another_workflow_with_the_same_ids",
        BROWSER,
    ),
    Mutation(
        "each run has another seed, so that a kept job is paid for again",
        WEB,
        "control.value = 'fixed'",
        "control.value = 'randomize'",
        "test_browser.py::test_a_seed_changes_only_when_its_user_says_so",
        BROWSER,
    ),
    Mutation(
        "a template that costs money comes first",
        WEB,
        "rank(a) - rank(b)",
        "rank(b) - rank(a)",
        "test_browser.py::test_template_browser_shows_the_thumbnail_the_demo_first_and_paid_ones_last",
        BROWSER,
    ),
    Mutation(
        "fps is there for a video, which keeps its own",
        WEB,
        "name === 'images')\n  if (!fps",
        "name === 'video')\n  if (!fps",
        "test_browser.py::test_fps_is_there_for_images_only",
        BROWSER,
    ),
    Mutation(
        "a refusal stays on its node after the next run",
        WEB,
        "hide(id)\n    texts.delete(id)",
        "texts.delete(id)",
        "test_browser.py::test_a_refusal_is_read_on_the_node_until_the_next_run",
        BROWSER,
    ),
    Mutation(
        "a result goes when the job ends",
        WEB,
        "setTimeout(() => texts.forEach((text, id) => show(id, text)))",
        "0",
        "test_browser.py::test_results_and_refusals_stay_with_other_frontends",
        BROWSER,
    ),
)

TABLE = (
    *PAID_PATH,
    *MEMORY,
    *SCHEDULE,
    *CONDITIONING,
    *EXPORTING,
    *LOADING,
    *NODES,
    *OWN_CLASSES,
    *JAVASCRIPT,
)
